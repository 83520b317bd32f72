//! Writes the Rust of the contract: `lavant-generator DESCRIPTOR_SET FOLDER`, as `client/rust/generate` calls it.

use std::error::Error;
use std::path::Path;
use std::{env, fs};

use prost::Message;
use prost_types::FileDescriptorSet;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [descriptors, folder] = arguments.as_slice() else {
        return Err("usage: lavant-generator DESCRIPTOR_SET FOLDER".into());
    };
    let contract = FileDescriptorSet::decode(fs::read(descriptors)?.as_slice())?;
    tonic_prost_build::configure()
        .build_server(false)
        .build_transport(false)
        // A map that is encoded twice has the same bytes: batches are compared with what is stored.
        .btree_map(".")
        .extern_path(".google.rpc", "::tonic_types::pb")
        .out_dir(Path::new(folder))
        .compile_fds(contract)?;
    Ok(())
}
