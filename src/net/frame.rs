//! Messages on a stream: a 32-bit big-endian length, then protobuf. The length is checked against
//! a bound before it is believed.

use std::io;

use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Reads one message of at most so many bytes; `None` at the end of the stream.
pub(super) async fn read<M, R>(io: &mut R, most: usize) -> io::Result<Option<M>>
where
    M: Message + Default,
    R: AsyncRead + Unpin,
{
    let length = match io.read_u32().await {
        Ok(length) => length as usize,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    if length > most {
        let why = format!("a message of {length} bytes, where {most} is the most");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    let mut bytes = vec![0; length];
    io.read_exact(&mut bytes).await?;
    M::decode(&bytes[..]).map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// A message with its length.
pub(super) fn encode(message: &impl Message) -> Vec<u8> {
    let length = message.encoded_len();
    let mut bytes = Vec::with_capacity(4 + length);
    bytes.extend((length as u32).to_be_bytes());
    // Only a buffer without room fails.
    message.encode(&mut bytes).ok();
    bytes
}

/// Writes one message, and does not flush.
pub(super) async fn write<W: AsyncWrite + Unpin>(io: &mut W, message: &impl Message) -> io::Result<()> {
    io.write_all(&encode(message)).await
}
