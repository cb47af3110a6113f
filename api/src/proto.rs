//! The generated messages, clients and servers of pallium's own API.

/// Package `pallium.v1`.
#[allow(clippy::all, clippy::pedantic, clippy::restriction, unused_qualifications, missing_docs)]
pub mod v1 {
    tonic::include_proto!("pallium.v1");
}

/// The encoded `FileDescriptorSet` of every package here, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pallium.bin"));

/// JSON that travels as its text in gRPC and as an object in REST.
pub(crate) mod json_text {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error, ser::Error as _};

    #[expect(clippy::ref_option, reason = "the signature that serde calls")]
    pub fn serialize<S: Serializer>(text: &Option<String>, out: S) -> Result<S::Ok, S::Error> {
        let value: Option<serde_json::Value> =
            text.as_deref().map(serde_json::from_str).transpose().map_err(S::Error::custom)?;
        value.serialize(out)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Option<String>, D::Error> {
        match Option::<serde_json::Value>::deserialize(input)? {
            None => Ok(None),
            Some(value @ serde_json::Value::Object(_)) => Ok(Some(value.to_string())),
            Some(_) => Err(D::Error::custom("nova_host_state: an object expected")),
        }
    }
}
