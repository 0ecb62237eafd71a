//! Uses a Backboned server from Rust.
//!
//! Usage: `backboned-example TARGET`, which is `host:port` or `unix:/path`. `--ca=FILE`
//! makes the connection one of TLS; `--certificate=FILE` and `--key=FILE`, and
//! `--token-file=FILE`, are what the client shows.

mod backbone;
mod connection;
mod options;
mod tensor_stream;

/// The contract's generated code.
pub mod pb {
    tonic::include_proto!("backboned.v1");
}

use std::process::ExitCode;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tonic::Status;

use backbone::{Backbone, head};
use connection::{connect, reason_of, within};
use options::Options;
use pb::backbone_service_client::BackboneServiceClient;
use pb::create_instance_request::Source;
use pb::instance_service_client::InstanceServiceClient;
use pb::{
    CreateInstanceRequest, DataType, DeleteInstanceRequest, ErrorReason, ForwardHeader,
    GetServerRequest, TensorSpec,
};

#[tokio::main]
async fn main() -> ExitCode {
    let Some(options) = Options::parse(std::env::args().skip(1)) else {
        eprintln!(
            "usage: backboned-example [--ca=FILE] [--certificate=FILE --key=FILE] \
             [--token-file=FILE] TARGET (host:port or unix:/path)"
        );
        return ExitCode::from(2);
    };
    match run(&options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(status) => {
            eprintln!("example: {:?}: {}", status.code(), status.message());
            ExitCode::FAILURE
        }
    }
}

/// Makes an instance, uses it, and deletes it in any case.
async fn run(options: &Options) -> Result<(), Status> {
    let connection = connect(options).await?;
    let mut instances = InstanceServiceClient::new(connection.clone());
    let server = within(instances.get_server(GetServerRequest {})).await?.into_inner();
    println!("server:     {}, LibTorch {}", server.version, server.torch_version);

    let request = CreateInstanceRequest {
        source: Some(Source::Benchmark("seq-cifar10".to_string())),
        seed: Some(0),
        ..Default::default()
    };
    let created = within(instances.create_instance(request)).await?.into_inner();
    let instance = created.instance.unwrap_or_default().name;

    let client = BackboneServiceClient::new(connection);
    let used = use_instance(Backbone { client, instance: instance.clone() }).await;
    let request = DeleteInstanceRequest { instance, ..Default::default() };
    let deleted = within(instances.delete_instance(request)).await;
    used.and(deleted.map(drop))
}

/// Goes through the calls; prints what they gave, and the answers' checksum.
async fn use_instance(mut net: Backbone) -> Result<(), Status> {
    let (images, pixels) = batch();
    let mut checksum = Sha256::new();

    let extracted = net.extract(images.clone(), pixels.clone()).await?;
    println!("features:   {:?}", extracted.output.unwrap_or_default().shape);
    checksum.update(&extracted.data);

    let header = ForwardHeader {
        outputs: vec!["features".to_string()],
        inputs: vec![images.clone()],
        ..Default::default()
    };
    let (_, features) = net.forward(header, pixels.clone()).await?;
    checksum.update(&features);

    let (result, params) = net.get_params(None).await?;
    let version = result.version.unwrap_or_default().params;
    println!("parameters: {} of version {version}", params.len() / 4);
    checksum.update(&params);

    change_head(&mut net).await?;

    let header = ForwardHeader {
        outputs: vec!["out".to_string()],
        inputs: vec![images],
        training: true,
        tape: true,
        ..Default::default()
    };
    let (result, logits) = net.forward(header, pixels).await?;
    checksum.update(&logits);

    // The gradient of half the sum of the squared logits is the logits.
    let output = result.outputs.into_iter().next().unwrap_or_default();
    let (_, grads) = net.backward(result.tape_id, output, logits.into()).await?;
    println!("gradients:  {}", grads.len() / 4);
    checksum.update(&grads);

    let hexadecimal: String = checksum.finalize().iter().map(|b| format!("{b:02x}")).collect();
    println!("sha256:     {hexadecimal}");
    Ok(())
}

/// The input: eight images of made-up pixels.
fn batch() -> (TensorSpec, Bytes) {
    let spec = TensorSpec {
        dtype: DataType::Uint8.into(),
        shape: vec![8, 3, 32, 32],
        ..Default::default()
    };
    let pixels = (0..tensor_stream::size_bytes(&spec)).map(|i| (i * 7919 % 256) as u8);
    (spec, pixels.collect())
}

/// Halves the classifier's parameters, and is refused when it writes them a second time
/// onto the version that it read.
async fn change_head(net: &mut Backbone) -> Result<(), Status> {
    let (result, mut values) = net.get_params(Some(head())).await?;
    for value in values.as_chunks_mut::<4>().0 {
        *value = (f32::from_le_bytes(*value) / 2.0).to_le_bytes();
    }
    let (spec, read) = (result.spec.unwrap_or_default(), result.version.unwrap_or_default());
    let values = Bytes::from(values);
    let written = net.set_head(spec.clone(), values.clone(), &read).await?;
    println!("head:       {} halved, version {}", values.len() / 4, written.params);

    match net.set_head(spec, values, &read).await {
        Ok(_) => Err(Status::internal("a stale version was accepted")),
        Err(status) if reason_of(&status) == ErrorReason::StaleVersion => {
            println!("again:      refused, {}", reason_of(&status).as_str_name());
            Ok(())
        }
        Err(status) => Err(status),
    }
}
