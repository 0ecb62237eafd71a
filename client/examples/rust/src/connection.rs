//! How this program makes calls: each with a deadline and the program's session.

use std::future::Future;
use std::time::Duration;

use prost::Message as _;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};

use crate::options::Options;
use crate::pb::{ErrorDetail, ErrorReason, StatusDetails};

/// The time that a call gets from its beginning.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How much the server may send ahead; hyper begins with 64 KiB.
const WINDOW_BYTES: u32 = 4 << 20;

pub type Connection = InterceptedService<Channel, Session>;

/// Tells the server the deadline and the session of each call, and the token if there is
/// one. What a session left is dropped by the server in the end.
#[derive(Clone)]
pub struct Session {
    name: MetadataValue<Ascii>,
    authorization: Option<MetadataValue<Ascii>>,
}

impl Interceptor for Session {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.set_timeout(TIMEOUT);
        request.metadata_mut().insert("backboned-session", self.name.clone());
        if let Some(authorization) = &self.authorization {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        Ok(request)
    }
}

/// Connects to `host:port` or `unix:/path`; by TLS if there is a CA.
pub async fn connect(options: &Options) -> Result<Connection, Status> {
    let target = &options.target;
    let uri = match (target.starts_with("unix:"), &options.ca) {
        (true, _) => target.to_string(),
        (false, None) => format!("http://{target}"),
        (false, Some(_)) => format!("https://{target}"),
    };
    let unavailable = |error| Status::unavailable(format!("{target}: {}", chain(&error)));
    let mut endpoint = Endpoint::from_shared(uri).map_err(unavailable)?;
    if let Some(ca) = &options.ca {
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(ca)?));
        if let (Some(certificate), Some(key)) = (&options.certificate, &options.key) {
            tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
        }
        endpoint = endpoint.tls_config(tls).map_err(unavailable)?;
    }
    let channel = endpoint
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .connect_timeout(TIMEOUT)
        .connect()
        .await
        .map_err(unavailable)?;
    let name = format!("{:032x}", rand::random::<u128>());
    let name = name.parse().expect("hexadecimal digits are metadata");
    let authorization = authorization(options)?;
    Ok(InterceptedService::new(channel, Session { name, authorization }))
}

/// What shows the token: through TLS, or to a Unix socket, since whoever reads it can use it.
fn authorization(options: &Options) -> Result<Option<MetadataValue<Ascii>>, Status> {
    let Some(file) = &options.token_file else { return Ok(None) };
    if options.ca.is_none() && !options.target.starts_with("unix:") {
        return Err(Status::invalid_argument("a token needs --ca, or a target unix:/path"));
    }
    let bearer = format!("Bearer {}", read(file)?.trim());
    let value =
        bearer.parse().map_err(|_| Status::invalid_argument(format!("{file} has no token")));
    value.map(Some)
}

fn read(file: &str) -> Result<String, Status> {
    std::fs::read_to_string(file).map_err(|e| Status::invalid_argument(format!("{file}: {e}")))
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
