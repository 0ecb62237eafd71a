//! Generates the contract's messages and clients.

fn main() -> std::io::Result<()> {
    let contract = "../../../proto";
    let services = ["backbone_service", "instance_service", "error"]
        .map(|name| format!("{contract}/backboned/v1/{name}.proto"));
    tonic_prost_build::configure()
        .build_server(false)
        .bytes(".") // Data share the memory of the message that brought them.
        .compile_protos(&services, &[contract.to_string()])
}
