//! A bundle as a stream of bytes.

use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt, TryStreamExt};

use crate::core::bundle::Layout;

/// A laid-out bundle as a stream of bytes; `payloads` are those of its runs, in their order.
pub fn assemble<E: Send + 'static>(
    layout: Layout,
    payloads: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
) -> impl Stream<Item = Result<Bytes, E>> + Send + 'static {
    let Layout { beginning, runs, writer, .. } = layout;
    let first = stream::once(std::future::ready(Ok(beginning)));
    let rest = stream::try_unfold(
        (writer, runs.into_iter(), payloads.boxed(), false),
        async |(mut writer, mut runs, mut payloads, over)| {
            if over {
                return Ok(None);
            }
            let next = match payloads.next().await {
                Some(payload) => runs.next().zip(Some(payload?)),
                None => None,
            };
            let (parts, over) = match next {
                Some((run, payload)) => ([Bytes::copy_from_slice(&writer.run(&run)), payload], false),
                None => ([writer.clone().end().into(), Bytes::new()], true),
            };
            Ok(Some((parts, (writer, runs, payloads, over))))
        },
    );
    let rest = rest.map_ok(|parts| stream::iter(parts.into_iter().filter(|it| !it.is_empty()).map(Ok)));
    first.chain(rest.try_flatten())
}
