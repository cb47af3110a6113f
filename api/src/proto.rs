//! The generated messages, clients and servers of pallium's own API.

use std::collections::BTreeMap;

/// Package `pallium.v1`.
#[allow(clippy::all, clippy::pedantic, clippy::restriction, unused_qualifications, missing_docs)]
pub mod v1 {
    tonic::include_proto!("pallium.v1");
}

/// Package `pallium.ha.v1`.
#[allow(clippy::all, clippy::pedantic, clippy::restriction, unused_qualifications, missing_docs)]
pub mod ha {
    tonic::include_proto!("pallium.ha.v1");
}

/// In JSON these are the list or map that they wrap.
macro_rules! plain {
    ($($message:ident: $plain:ty),* $(,)?) => {$(
        impl utoipa::PartialSchema for v1::$message {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                <$plain as utoipa::PartialSchema>::schema()
            }
        }

        impl utoipa::ToSchema for v1::$message {
            fn schemas(
                schemas: &mut Vec<(String, utoipa::openapi::RefOr<utoipa::openapi::schema::Schema>)>,
            ) {
                <$plain as utoipa::ToSchema>::schemas(schemas);
            }
        }
    )*};
}

plain! {
    StringList: Vec<String>,
    InventoryMap: BTreeMap<String, v1::InventoryReport>,
    AmountMap: BTreeMap<String, u64>,
    StringMap: BTreeMap<String, String>,
    AggregateList: Vec<v1::AggregateReport>,
    NumaCellList: Vec<v1::NumaCell>,
    InstanceReportList: Vec<v1::InstanceReport>,
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
            Some(_) => Err(D::Error::custom("an object expected")),
        }
    }
}
