//! Tensors as streams of messages: a header, then chunks of the tensors' bytes.

use bytes::Bytes;
use tokio_stream::Stream;
use tonic::{Status, Streaming};

use crate::pb::{self, Chunk, DataType, TensorSpec};

/// How much data a message carries; the server takes at most 2 MiB.
const CHUNK_BYTES: usize = 1 << 20;

/// A message of a stream.
pub trait Message: Sized {
    type Header;
    fn new(header: Option<Self::Header>, chunk: Chunk) -> Self;
    fn into_parts(self) -> (Option<Self::Header>, Option<Chunk>);
}

macro_rules! messages {
    ($($message:ident: $header:ident),* $(,)?) => {$(
        impl Message for pb::$message {
            type Header = pb::$header;
            fn new(header: Option<Self::Header>, chunk: Chunk) -> Self {
                Self { header, chunk: Some(chunk) }
            }
            fn into_parts(self) -> (Option<Self::Header>, Option<Chunk>) {
                (self.header, self.chunk)
            }
        }
    )*};
}

messages! {
    ForwardRequest: ForwardHeader,
    ForwardResponse: ForwardResult,
    BackwardRequest: BackwardHeader,
    BackwardResponse: BackwardResult,
    GetParamsResponse: GetParamsResult,
    SetParamsRequest: SetParamsHeader,
}

/// Gives a request's messages: the header with the first chunk, then the others.
pub fn send<M: Message + Send>(header: M::Header, data: Bytes) -> impl Stream<Item = M> + Send
where
    M::Header: Send,
{
    let mut header = Some(header);
    let offsets = (0..data.len().max(1)).step_by(CHUNK_BYTES);
    tokio_stream::iter(offsets.map(move |begin| {
        let end = data.len().min(begin + CHUNK_BYTES);
        let chunk = Chunk { offset: begin as i64, data: data.slice(begin..end) };
        M::new(header.take(), chunk)
    }))
}

/// Reads an answer to its end: the header, and the bytes of the tensors that `specs_of`
/// says the header announces, back to back.
pub async fn receive<M: Message>(
    mut messages: Streaming<M>,
    specs_of: impl Fn(&M::Header) -> &[TensorSpec],
) -> Result<(M::Header, Vec<u8>), Status> {
    let mut header = None;
    let mut data = Vec::new();
    let mut expected = 0;
    while let Some(message) = messages.message().await? {
        let (first, chunk) = message.into_parts();
        if let Some(first) = first {
            expected = specs_of(&first).iter().map(size_bytes).sum();
            data.reserve_exact(expected);
            header = Some(first);
        }
        let Some(chunk) = chunk else { continue };
        if chunk.offset != data.len() as i64 && !chunk.data.is_empty() {
            return Err(malformed(format!(
                "a chunk starts at byte {}, expected byte {}",
                chunk.offset,
                data.len()
            )));
        }
        let end = data.len() + chunk.data.len();
        if end > expected {
            return Err(malformed(format!("a chunk ends at byte {end} of {expected}")));
        }
        data.extend_from_slice(&chunk.data);
    }
    match header {
        Some(header) if data.len() == expected => Ok((header, data)),
        _ => Err(malformed(format!("the answer ends at byte {} of {expected}", data.len()))),
    }
}

/// The number of bytes of a tensor.
pub fn size_bytes(spec: &TensorSpec) -> usize {
    let element_bytes = match spec.dtype() {
        DataType::Float64 | DataType::Int64 => 8,
        DataType::Float32 => 4,
        DataType::Float16 | DataType::Bfloat16 => 2,
        DataType::Uint8 => 1,
        DataType::Unspecified => 0,
    };
    spec.shape.iter().map(|&size| size as usize).product::<usize>() * element_bytes
}

fn malformed(sentence: String) -> Status {
    Status::data_loss(sentence)
}
