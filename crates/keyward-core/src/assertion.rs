//! `Keyward-Assertion`: the signed statement about the caller on every forwarded request.
//!
//! A compact JWS (RFC 7515) over JWT claims (RFC 7519), HS256 under a secret shared with one
//! upstream, or EdDSA (RFC 8037) under a key whose public half is served as a JWKS.

use std::borrow::Cow;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{self, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::json::{push_number, push_text};
use crate::mac::MacKey;
use crate::time::Timestamp;

/// The `iss` claim of every assertion.
pub const ISSUER: &str = "keyward";
/// The header that carries the assertion.
pub const HEADER: &str = "keyward-assertion";
/// Seconds between `iat` and `exp`.
pub const LIFETIME_SECONDS: i64 = 30;
/// Seconds by which the clocks of gateway and upstream may differ.
pub const LEEWAY_SECONDS: i64 = 5;
/// Bytes a shared secret must have.
pub const MIN_SECRET_BYTES: usize = 32;
/// Bytes of an assertion that a verifier reads.
pub const MAX_ASSERTION_BYTES: usize = 8 * 1024;

/// Bytes that hold the claims of nearly every request, so that they are written in one go.
const USUAL_CLAIMS_BYTES: usize = 640;
/// `{"alg":"HS256","typ":"JWT"}`, encoded.
const HS256_HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";

/// Who calls, what for, and until when this may be believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims<'a> {
    /// Always [`ISSUER`].
    pub iss: &'a str,
    /// The upstream this was made for.
    pub aud: &'a str,
    /// Seconds since the epoch at which it was made.
    pub iat: i64,
    /// Seconds since the epoch after which it is void.
    pub exp: i64,
    /// The id of the key.
    pub sub: &'a str,
    /// The id of the tenant.
    pub tenant: &'a str,
    /// The environment of the key.
    pub environment: &'a str,
    /// The scopes of the key.
    #[serde(borrow)]
    pub scopes: Vec<&'a str>,
    /// The role of the key's owner now.
    pub role: &'a str,
    /// The id of the key's owner.
    pub actor: &'a str,
    /// The method of the request.
    pub method: &'a str,
    /// The path of the request as forwarded, without the query. The one text of a caller in here:
    /// JSON may have to escape it, and then it cannot be borrowed back.
    #[serde(borrow)]
    pub path: Cow<'a, str>,
    /// The id of the request.
    #[serde(rename = "requestId")]
    pub request_id: &'a str,
}

impl Claims<'_> {
    /// What serde would write, in a quarter of the time: this is done for every request.
    fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(USUAL_CLAIMS_BYTES);
        push_text(&mut out, br#"{"iss":"#, self.iss);
        push_text(&mut out, br#","aud":"#, self.aud);
        push_number(&mut out, br#","iat":"#, self.iat);
        push_number(&mut out, br#","exp":"#, self.exp);
        push_text(&mut out, br#","sub":"#, self.sub);
        push_text(&mut out, br#","tenant":"#, self.tenant);
        push_text(&mut out, br#","environment":"#, self.environment);
        out.extend_from_slice(br#","scopes":["#);
        for (position, scope) in self.scopes.iter().enumerate() {
            push_text(&mut out, if position == 0 { b"" } else { b"," }, scope);
        }
        push_text(&mut out, br#"],"role":"#, self.role);
        push_text(&mut out, br#","actor":"#, self.actor);
        push_text(&mut out, br#","method":"#, self.method);
        push_text(&mut out, br#","path":"#, &self.path);
        push_text(&mut out, br#","requestId":"#, self.request_id);
        out.push(b'}');
        out
    }
}

/// Why an assertion is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssertionError {
    /// Not three base64url parts, or claims that do not parse.
    #[error("the assertion is not a compact JWS with our claims")]
    Malformed,
    /// Another algorithm than the verifier's key is for.
    #[error("the assertion is signed with another algorithm")]
    WrongAlgorithm,
    /// The signature does not match.
    #[error("the signature of the assertion does not match")]
    WrongSignature,
    /// Made by another issuer or for another upstream.
    #[error("the assertion is for another audience")]
    WrongAudience,
    /// Too old, or from the future.
    #[error("the assertion is outside its lifetime")]
    Expired,
    /// A key could not be read.
    #[error("the key is not usable for assertions")]
    InvalidKey,
}

/// The key a gateway signs with.
pub enum SigningKey {
    /// A secret shared with the upstream.
    Hs256(MacKey),
    /// A key pair; the header names it by its thumbprint.
    EdDsa(EdDsaKey),
}

/// An Ed25519 key pair and the encoded header that names it.
pub struct EdDsaKey {
    pair: Ed25519KeyPair,
    header: String,
    id: String,
}

impl SigningKey {
    /// An HS256 key from a secret of at least [`MIN_SECRET_BYTES`].
    pub fn hs256(secret: &[u8]) -> Result<Self, AssertionError> {
        shared_key(secret).map(Self::Hs256)
    }

    /// An EdDSA key from a 32-byte seed.
    pub fn eddsa(seed: &[u8]) -> Result<Self, AssertionError> {
        let pair =
            Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| AssertionError::InvalidKey)?;
        let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
        // RFC 7638: the members in this order, no white space
        let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
        let id = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, canonical.as_bytes()));
        let header =
            URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"EdDSA","kid":"{id}","typ":"JWT"}}"#));
        Ok(Self::EdDsa(EdDsaKey { pair, header, id }))
    }

    /// The public half as a JWK (RFC 8037); `None` for a shared secret.
    pub fn jwk(&self) -> Option<serde_json::Value> {
        let Self::EdDsa(key) = self else { return None };
        Some(serde_json::json!({
            "kty": "OKP",
            "crv": "Ed25519",
            "alg": "EdDSA",
            "use": "sig",
            "kid": key.id,
            "x": URL_SAFE_NO_PAD.encode(key.pair.public_key().as_ref()),
        }))
    }

    /// The signed assertion.
    pub fn sign(&self, claims: &Claims<'_>) -> String {
        let mut token = Vec::new();
        self.sign_into(claims, &mut token);
        // it is ASCII by construction
        String::from_utf8(token).unwrap_or_default()
    }

    /// Appends the signed assertion to `out`, in ASCII. It may be reused between calls.
    pub fn sign_into(&self, claims: &Claims<'_>, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(match self {
            Self::Hs256(_) => HS256_HEADER.as_bytes(),
            Self::EdDsa(key) => key.header.as_bytes(),
        });
        push_encoded(out, &claims.to_json());
        let signed = out.get(start..).unwrap_or_default();
        match self {
            Self::Hs256(key) => {
                let tag = key.sign(signed);
                push_encoded(out, &tag);
            }
            Self::EdDsa(key) => {
                let signature = key.pair.sign(signed);
                push_encoded(out, signature.as_ref());
            }
        }
    }
}

/// Writes a dot, and then the bytes in base64url.
fn push_encoded(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'.');
    let start = out.len();
    // four digits for three bytes, rounded up
    out.resize(start + (bytes.len() * 4).div_ceil(3), 0);
    let room = out.get_mut(start..).unwrap_or_default();
    // it has room for exactly that
    let _ = URL_SAFE_NO_PAD.encode_slice(bytes, room);
}

/// The key an upstream verifies with.
pub enum VerifyKey {
    /// The secret shared with the gateway.
    Hs256(MacKey),
    /// The 32-byte public key of the gateway.
    EdDsa(Vec<u8>),
}

impl VerifyKey {
    /// An HS256 key from a secret of at least [`MIN_SECRET_BYTES`].
    pub fn hs256(secret: &[u8]) -> Result<Self, AssertionError> {
        shared_key(secret).map(Self::Hs256)
    }

    /// An EdDSA key from the `x` member of a JWK.
    pub fn eddsa(x: &str) -> Result<Self, AssertionError> {
        let public = URL_SAFE_NO_PAD.decode(x).map_err(|_| AssertionError::InvalidKey)?;
        if public.len() == 32 { Ok(Self::EdDsa(public)) } else { Err(AssertionError::InvalidKey) }
    }

    const fn algorithm(&self) -> &'static str {
        match self {
            Self::Hs256(_) => "HS256",
            Self::EdDsa(_) => "EdDSA",
        }
    }

    fn holds(&self, signed: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Hs256(key) => key.verifies(signed, signature),
            Self::EdDsa(public) => {
                let key = UnparsedPublicKey::new(&signature::ED25519, public);
                key.verify(signed, signature).is_ok()
            }
        }
    }
}

/// An assertion whose signature, audience and lifetime hold.
pub struct Verified {
    body: Vec<u8>,
}

impl Verified {
    /// The claims. They parsed once already, so the error is [`AssertionError::Malformed`] at most.
    pub fn claims(&self) -> Result<Claims<'_>, AssertionError> {
        serde_json::from_slice(&self.body).map_err(|_| AssertionError::Malformed)
    }
}

/// The id of the key that an assertion says it was signed with. Nothing of it is proven yet: it
/// only chooses the key to prove it with.
pub fn key_id(token: &str) -> Result<Option<String>, AssertionError> {
    if token.len() > MAX_ASSERTION_BYTES {
        return Err(AssertionError::Malformed);
    }
    let (header, _) = token.split_once('.').ok_or(AssertionError::Malformed)?;
    let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| AssertionError::Malformed)?;
    let header: Header = serde_json::from_slice(&header).map_err(|_| AssertionError::Malformed)?;
    Ok(header.kid)
}

/// Verifies signature, issuer, audience and lifetime of an assertion.
///
/// The caller still compares `method` and `path` with the request it received.
pub fn verify(
    token: &str,
    key: &VerifyKey,
    audience: &str,
    now: Timestamp,
) -> Result<Verified, AssertionError> {
    if token.len() > MAX_ASSERTION_BYTES {
        return Err(AssertionError::Malformed);
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(AssertionError::Malformed)?;
    let (header, body) = signed.split_once('.').ok_or(AssertionError::Malformed)?;
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| AssertionError::Malformed);
    let header: Header =
        serde_json::from_slice(&decode(header)?).map_err(|_| AssertionError::Malformed)?;
    if header.alg != key.algorithm() {
        return Err(AssertionError::WrongAlgorithm);
    }
    if !key.holds(signed.as_bytes(), &decode(signature)?) {
        return Err(AssertionError::WrongSignature);
    }
    let verified = Verified { body: decode(body)? };
    let claims = verified.claims()?;
    if claims.iss != ISSUER || claims.aud != audience {
        return Err(AssertionError::WrongAudience);
    }
    let seconds = now.as_seconds();
    let dead = claims.exp.saturating_add(LEEWAY_SECONDS);
    let born = claims.iat.saturating_sub(LEEWAY_SECONDS);
    if seconds > dead || seconds < born {
        return Err(AssertionError::Expired);
    }
    Ok(verified)
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
}

fn shared_key(secret: &[u8]) -> Result<MacKey, AssertionError> {
    if secret.len() < MIN_SECRET_BYTES {
        return Err(AssertionError::InvalidKey);
    }
    Ok(MacKey::new(secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

    fn claims() -> Claims<'static> {
        Claims {
            iss: ISSUER,
            aud: "reports",
            iat: 1_800_000_000,
            exp: 1_800_000_000 + LIFETIME_SECONDS,
            sub: "key_0000000000000000000001",
            tenant: "ten_0000000000000000000001",
            environment: "live",
            scopes: vec!["reports:read"],
            role: "analyst",
            actor: "usr_0000000000000000000001",
            method: "GET",
            path: "/v1/reports".into(),
            request_id: "req_0000000000000000000001",
        }
    }

    fn signed(key: &SigningKey) -> String {
        key.sign(&claims())
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    #[test]
    fn a_stock_library_reads_what_we_sign() {
        let token = signed(&SigningKey::hs256(SECRET).unwrap());
        let mut rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::HS256);
        rules.set_audience(&["reports"]);
        rules.set_issuer(&[ISSUER]);
        rules.validate_exp = false;
        let key = jsonwebtoken::DecodingKey::from_secret(SECRET);
        let read = jsonwebtoken::decode::<serde_json::Value>(&token, &key, &rules).unwrap();
        assert_eq!(read.claims["requestId"], "req_0000000000000000000001");
    }

    #[test]
    fn verifies_both_algorithms_and_nothing_else() {
        let eddsa = SigningKey::eddsa(&[7; 32]).unwrap();
        let x = eddsa.jwk().unwrap()["x"].as_str().unwrap().to_owned();
        let pairs = [
            (SigningKey::hs256(SECRET).unwrap(), VerifyKey::hs256(SECRET).unwrap()),
            (eddsa, VerifyKey::eddsa(&x).unwrap()),
        ];
        for (signing, verifying) in &pairs {
            let token = signed(signing);
            let check = |token: &str, audience: &str, now| {
                verify(token, verifying, audience, now).map(|verified| {
                    assert_eq!(verified.claims().unwrap(), claims());
                })
            };
            assert_eq!(check(&token, "reports", at(1_800_000_010)), Ok(()));
            let refused = Err(AssertionError::WrongAudience);
            assert_eq!(check(&token, "billing", at(1_800_000_010)), refused);
            assert_eq!(check(&token, "reports", at(1_800_000_036)), Err(AssertionError::Expired));
            assert_eq!(check(&token, "reports", at(1_799_999_990)), Err(AssertionError::Expired));
            let mut bent = token.clone();
            let last = if bent.ends_with('A') { "B" } else { "A" };
            bent.replace_range(bent.len() - 3..bent.len() - 2, last);
            assert_eq!(
                check(&bent, "reports", at(1_800_000_010)),
                Err(AssertionError::WrongSignature)
            );
            assert_eq!(check("a.b", "reports", at(0)), Err(AssertionError::Malformed));
        }
        let crossed = verify(&signed(&pairs[0].0), &pairs[1].1, "reports", at(1_800_000_010));
        assert_eq!(crossed.err(), Some(AssertionError::WrongAlgorithm));
    }

    #[test]
    fn claims_are_written_as_serde_writes_them() {
        let odd = "a\"b\\c\n\u{7f}é";
        let none = Claims { scopes: Vec::new(), iat: i64::MIN, exp: i64::MAX, ..claims() };
        let two = Claims { scopes: vec!["a:b", odd], path: odd.into(), role: odd, ..claims() };
        for claims in [claims(), none, two] {
            assert_eq!(claims.to_json(), serde_json::to_vec(&claims).unwrap());
        }
        let header = URL_SAFE_NO_PAD.decode(HS256_HEADER).unwrap();
        assert_eq!(header, br#"{"alg":"HS256","typ":"JWT"}"#);
    }

    #[test]
    fn an_assertion_names_its_key() {
        let eddsa = SigningKey::eddsa(&[7; 32]).unwrap();
        let id = eddsa.jwk().unwrap()["kid"].as_str().unwrap().to_owned();
        assert_eq!(key_id(&signed(&eddsa)), Ok(Some(id)));
        assert_eq!(key_id(&signed(&SigningKey::hs256(SECRET).unwrap())), Ok(None));
        for bent in ["", "a", "a.b.c", "!.b.c"] {
            assert_eq!(key_id(bent), Err(AssertionError::Malformed), "{bent}");
        }
    }

    #[test]
    fn a_path_with_quotes_comes_back_as_it_was() {
        let signing = SigningKey::hs256(SECRET).unwrap();
        let mut claims = claims();
        claims.path = r#"/v1/reports/"a\b""#.into();
        let token = signing.sign(&claims);
        let key = VerifyKey::hs256(SECRET).unwrap();
        let verified = verify(&token, &key, "reports", at(1_800_000_010)).unwrap();
        assert_eq!(verified.claims().unwrap(), claims);
    }

    #[test]
    fn extreme_lifetimes_do_not_overflow() {
        let signing = SigningKey::hs256(SECRET).unwrap();
        let key = VerifyKey::hs256(SECRET).unwrap();
        for (iat, exp, holds) in [(i64::MIN, i64::MAX, true), (i64::MAX, i64::MIN, false)] {
            let token = signing.sign(&Claims { iat, exp, ..claims() });
            let read = verify(&token, &key, "reports", at(1_800_000_010));
            assert_eq!(read.is_ok(), holds);
        }
    }

    #[test]
    fn short_secrets_are_refused() {
        assert!(SigningKey::hs256(b"too short").is_err());
        assert!(VerifyKey::hs256(b"too short").is_err());
    }
}
