//! Proto3 JSON, which prost has not: by the descriptors of the contract, which `generate` writes.

use std::sync::LazyLock;

use lavant::{Code, Error};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::Value;

static CONTRACT: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(include_bytes!("descriptors.binpb").as_slice()).unwrap());

/// Return a message of the contract as proto3 JSON.
pub fn print<M: Message>(name: &str, message: &M) -> Value {
    let mut dynamic = DynamicMessage::new(descriptor(name));
    dynamic.merge(message.encode_to_vec().as_slice()).unwrap();
    serde_json::to_value(&dynamic).unwrap()
}

/// Parse proto3 JSON; the default message from an absent field.
pub fn parse<M: Message + Default>(name: &str, value: &Value) -> Result<M, Error> {
    if value.is_null() {
        return Ok(M::default());
    }
    let dynamic = DynamicMessage::deserialize(descriptor(name), value).map_err(|error| Error::Invalid(error.to_string()))?;
    dynamic.transcode_to().map_err(|error| Error::Invalid(error.to_string()))
}

fn descriptor(name: &str) -> prost_reflect::MessageDescriptor {
    CONTRACT.get_message_by_name(&format!("lavant.v1.{name}")).unwrap()
}

/// Return the name of a status code, such as NOT_FOUND.
pub fn code(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.extend(letter.to_uppercase());
    }
    name
}
