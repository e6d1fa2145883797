//! Signs what is sent to a webhook, so that its receiver can tell it from what others send.
//!
//! The scheme is the field's usual one: the timestamp in seconds since 1970, a dot and the body are signed with
//! HMAC-SHA256 under a shared key. A receiver computes the same, compares in constant time, and refuses a timestamp that
//! is more than a few minutes away from its own clock, so that nothing recorded can be sent again later.

use hmac::{Hmac, Mac};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

/// The header with the instant of signing, in seconds since 1970.
pub const TIMESTAMP_HEADER: &str = "x-dutybound-timestamp";
/// The header with the signature: `v1=` and the HMAC in hexadecimal digits.
pub const SIGNATURE_HEADER: &str = "x-dutybound-signature";

/// The values of both headers for a body that is sent now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// Of [`TIMESTAMP_HEADER`].
    pub timestamp: String,
    /// Of [`SIGNATURE_HEADER`].
    pub signature: String,
}

/// Signs a body. Made anew for each try, because receivers refuse an old one. `None` never in practice: HMAC takes keys of
/// any length.
#[must_use]
pub fn sign(key: &SecretString, now: Timestamp, body: &[u8]) -> Option<Signed> {
    let timestamp = now.as_second().to_string();
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose_secret().as_bytes()).ok()?;
    mac.update(timestamp.as_bytes());
    mac.update(b".");
    mac.update(body);
    let digits: String = mac
        .finalize()
        .into_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Some(Signed {
        timestamp,
        signature: format!("v1={digits}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with Python's `hmac.new(b"k3y", b'1700000000.{"a":1}\n', "sha256").hexdigest()`.
    #[test]
    fn the_signature_is_what_others_compute() {
        let key = SecretString::from("k3y");
        let now = Timestamp::from_millisecond(1_700_000_000_999).unwrap();
        let signed = sign(&key, now, b"{\"a\":1}\n").unwrap();
        assert_eq!(signed.timestamp, "1700000000");
        assert_eq!(
            signed.signature,
            "v1=75994f30816849215b17ca8596dc15b1b72d85ad11a6dd39f6b155b3fc735c37"
        );
    }
}
