//! A field of a PATCH that can be left alone, cleared or set.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What a PATCH says of one field. Put `#[serde(default, skip_serializing_if)]` on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Patch<T> {
    /// Not mentioned: it stays.
    #[default]
    Keep,
    /// `null`: it goes.
    Clear,
    /// A value: it takes its place.
    Set(T),
}

impl<T> Patch<T> {
    /// Whether the field is not mentioned.
    pub const fn is_keep(&self) -> bool {
        matches!(self, Self::Keep)
    }

    /// The new value, if there is one.
    pub const fn value(&self) -> Option<&T> {
        match self {
            Self::Set(value) => Some(value),
            Self::Keep | Self::Clear => None,
        }
    }
}

impl<T: Serialize> Serialize for Patch<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value().serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Patch<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(deserializer)?.map_or(Self::Clear, Self::Set))
    }
}
