//! What an upstream answers, as it comes.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use object_store::client::HttpResponseBody;

use super::super::with_causes;
use super::UpstreamError;
use super::gunzip::Gunzip;

/// Without a byte for so long it has broken off.
const SILENCE: Duration = Duration::from_secs(15);

/// What an upstream answers.
#[derive(Debug)]
pub struct Answer {
    /// 200, 206, 226 or 304.
    pub status: u16,
    /// What clients are told.
    pub headers: Vec<(String, String)>,
    /// The length of the whole object, in bytes, if it is said.
    pub size: Option<u64>,
    /// The first byte of it that comes.
    pub start: u64,
    /// Seconds that it has been in caches already.
    pub age_s: u64,
    pub(super) upstream: String,
    pub(super) path: String,
    pub(super) body: HttpResponseBody,
    pub(super) came: u64,
    /// It comes compressed.
    pub(super) gunzip: Option<Gunzip>,
}

impl Answer {
    /// Bytes of the body that have come so far, as they come.
    pub fn came(&self) -> u64 {
        self.came
    }

    /// Whether it comes compressed, so that no part of it can be asked for.
    pub fn is_packed(&self) -> bool {
        self.gunzip.is_some()
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// [`UpstreamError::Unreachable`] if it breaks off, [`UpstreamError::Wrong`] if it cannot be unpacked.
    pub async fn next(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        loop {
            if let Some(ready) = self.unpacked(Gunzip::next)? {
                return Ok(Some(ready));
            }
            match (self.frame().await?, &mut self.gunzip) {
                (Some(data), Some(gunzip)) => gunzip.feed(data),
                (None, Some(_)) => {
                    let rest = self.unpacked(Gunzip::end)?;
                    self.gunzip = None;
                    return Ok(rest);
                }
                (plain, None) => return Ok(plain),
            }
        }
    }

    fn unpacked(
        &mut self,
        step: impl Fn(&mut Gunzip) -> Result<Option<Bytes>, String>,
    ) -> Result<Option<Bytes>, UpstreamError> {
        let Some(gunzip) = &mut self.gunzip else { return Ok(None) };
        step(gunzip).map_err(|why| UpstreamError::Wrong {
            upstream: self.upstream.clone(),
            path: self.path.clone(),
            why: format!("it says that it is gzip, and cannot be unpacked: {why}"),
        })
    }

    /// What comes over the wire next.
    async fn frame(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        loop {
            let broken = |why: String| UpstreamError::Unreachable { upstream: self.upstream.clone(), why };
            let frame = tokio::time::timeout(SILENCE, self.body.frame()).await;
            let frame = frame.map_err(|_| broken(format!("it sent nothing for {} s", SILENCE.as_secs())))?;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(broken(with_causes(&error))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => {
                        self.came += data.len() as u64;
                        return Ok(Some(data));
                    }
                    _ => {}
                },
            }
        }
    }
}
