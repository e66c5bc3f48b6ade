//! `data:` addresses: RFC 2397, with base64.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;

/// Padding is optional, as in browsers.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why a `data:` address cannot be read.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum DataError {
    /// No comma between type and data.
    #[error("The data: address has no comma before its data. Write data:image/png;base64,DATA.")]
    NoData,
    /// Percent-encoded data.
    #[error("The data: address is not in base64. Write data:image/png;base64,DATA.")]
    NotBase64,
    /// Damaged base64.
    #[error(
        "The data: address has damaged base64. Encode the whole file, in the standard alphabet."
    )]
    Damaged,
}

/// The bytes of a `data:` address. Its media type is not looked at: the bytes tell the format.
pub fn decode(address: &str) -> Result<Bytes, DataError> {
    let rest = address.split_once(':').map_or("", |(_, rest)| rest);
    let (kind, data) = rest.split_once(',').ok_or(DataError::NoData)?;
    let base64 = kind.rsplit(';').next().unwrap_or_default();
    if !base64.trim().eq_ignore_ascii_case("base64") {
        return Err(DataError::NotBase64);
    }
    let decoded = match data.bytes().any(|byte| byte.is_ascii_whitespace()) {
        true => {
            let data: Vec<u8> = { data.bytes() }
                .filter(|byte| !byte.is_ascii_whitespace())
                .collect();
            BASE64.decode(data)
        }
        false => BASE64.decode(data),
    };
    decoded.map(Bytes::from).map_err(|_| DataError::Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_decoded() {
        for address in [
            "data:image/png;base64,Zm9v",
            "DATA:;base64,Zm9v",
            "data:image/png;charset=x;BASE64,Zm 9\nv",
        ] {
            assert_eq!(decode(address), Ok(Bytes::from_static(b"foo")), "{address}");
        }
        for padded in ["data:;base64,Zm8=", "data:;base64,Zm8"] {
            assert_eq!(decode(padded), Ok(Bytes::from_static(b"fo")));
        }
        assert_eq!(decode("data:;base64,"), Ok(Bytes::new()));
    }

    #[test]
    fn anything_else_is_refused() {
        assert_eq!(decode("data:image/png;base64"), Err(DataError::NoData));
        assert_eq!(decode("data:image/png,%89PNG"), Err(DataError::NotBase64));
        assert_eq!(decode("data:base64x,Zm9v"), Err(DataError::NotBase64));
        for damaged in ["Zm9v!", "Z", "Zm9v====", "é", "_-_-"] {
            let address = format!("data:image/png;base64,{damaged}");
            assert_eq!(decode(&address), Err(DataError::Damaged), "{damaged}");
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn every_file_survives(bytes: Vec<u8>) {
            let address = format!("data:image/png;base64,{}", BASE64.encode(&bytes));
            proptest::prop_assert_eq!(decode(&address), Ok(Bytes::from(bytes)));
        }

        #[test]
        fn no_address_panics(address in "(data:)?[a-z/;,=]{0,12}(base64)?,?\\PC{0,20}") {
            let _ = decode(&address);
        }
    }
}
