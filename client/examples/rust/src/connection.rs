//! How this program makes calls: each with a deadline and the program's session.

use std::future::Future;
use std::time::Duration;

use prost::Message as _;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::pb::{ErrorDetail, ErrorReason, StatusDetails};

/// The time that a call gets from its beginning.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How much the server may send ahead; hyper begins with 64 KiB.
const WINDOW_BYTES: u32 = 4 << 20;

pub type Connection = InterceptedService<Channel, Session>;

/// Tells the server the deadline and the session of each call. What a session left is
/// dropped by the server in the end.
#[derive(Clone)]
pub struct Session(MetadataValue<Ascii>);

impl Interceptor for Session {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.set_timeout(TIMEOUT);
        request.metadata_mut().insert("backboned-session", self.0.clone());
        Ok(request)
    }
}

/// Connects to `host:port` or `unix:/path`.
pub async fn connect(target: &str) -> Result<Connection, Status> {
    let uri = match target.starts_with("unix:") {
        true => target.to_string(),
        false => format!("http://{target}"),
    };
    let unavailable = |error| Status::unavailable(format!("{target}: {}", chain(&error)));
    let channel = Endpoint::from_shared(uri)
        .map_err(unavailable)?
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .connect_timeout(TIMEOUT)
        .connect()
        .await
        .map_err(unavailable)?;
    let session = format!("{:032x}", rand::random::<u128>());
    let session = session.parse().expect("hexadecimal digits are metadata");
    Ok(InterceptedService::new(channel, Session(session)))
}

/// Bounds a whole call by this program's clock too. Tonic's own stops where the answer
/// begins, and a server that is gone ends no call.
pub async fn within<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    tokio::time::timeout(TIMEOUT, call)
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded("the server does not answer in time")))
}

/// The machine-readable reason of a call that failed.
pub fn reason_of(status: &Status) -> ErrorReason {
    // Tonic gives the content of the trailer `grpc-status-details-bin`.
    let details = StatusDetails::decode(status.details()).unwrap_or_default();
    details
        .details
        .first()
        .and_then(|any| ErrorDetail::decode(any.value.as_ref()).ok())
        .map_or(ErrorReason::Unspecified, |detail| detail.reason())
}

/// An error and what it came from, as one sentence.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}
