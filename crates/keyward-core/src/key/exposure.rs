//! That a key was seen where others may have seen it too.

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorCode};
use crate::time::Timestamp;

/// How a key got where others may have seen it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exposure {
    /// It crossed a network in clear text.
    ClearText,
    /// It stood in an address, where logs and histories keep it.
    Url,
    /// A web page sent it, and everybody can read a page.
    Browser,
}

impl Exposure {
    /// Every way.
    pub const ALL: [Self; 3] = [Self::ClearText, Self::Url, Self::Browser];

    /// The word on the wire and in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClearText => "clear_text",
            Self::Url => "url",
            Self::Browser => "browser",
        }
    }

    /// The code of the refusal of a key that comes this way.
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::ClearText => ErrorCode::TlsRequired,
            Self::Url => ErrorCode::CredentialInUrl,
            Self::Browser => ErrorCode::BrowserOriginRefused,
        }
    }

    /// What is wrong and what to do about it, for the caller.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::ClearText => {
                "The key came without TLS, where everybody on the way can read it; call the \
                 https:// address, and rotate this key"
            }
            Self::Url => {
                "An API key stands in the address, where logs and browsers keep it; send it in a \
                 header, and rotate this key"
            }
            Self::Browser => "This is a secret key; call from a server, never from a browser",
        }
    }

    /// The refusal of a key that comes this way.
    pub fn refusal(self) -> Error {
        Error::new(self.code(), self.advice())
    }

    /// The way of a stored word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|exposure| exposure.as_str() == word)
    }
}

/// The first time a key was exposed. It works on; its owner decides what it is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exposed {
    /// When that was noticed.
    pub at: Timestamp,
    /// How it happened.
    pub by: Exposure,
}
