//! Bytes as a stream brings them, handed out in the lengths that are wanted.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

/// A queue of bytes.
#[derive(Debug, Default)]
pub struct Pieces {
    queue: VecDeque<Bytes>,
    length: usize,
}

impl Pieces {
    /// Adds what came.
    pub fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.length += piece.len();
            self.queue.push_back(piece);
        }
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The next bytes, copied only if they came in several pieces; fewer if there are not so many.
    pub fn take(&mut self, length: usize) -> Bytes {
        let length = length.min(self.length);
        if let Some(front) = self.queue.front_mut()
            && front.len() >= length
        {
            let taken = front.split_to(length);
            self.length -= length;
            if front.is_empty() {
                self.queue.pop_front();
            }
            return taken;
        }
        let mut taken = BytesMut::zeroed(length);
        self.fill(&mut taken);
        taken.freeze()
    }

    /// Copies the next bytes; how many there were.
    pub fn fill(&mut self, target: &mut [u8]) -> usize {
        let mut done = 0;
        while done < target.len() {
            let Some(front) = self.queue.front_mut() else { break };
            let more = front.len().min(target.len() - done);
            front.copy_to_slice(&mut target[done..done + more]);
            done += more;
            if front.is_empty() {
                self.queue.pop_front();
            }
        }
        self.length -= done;
        done
    }
}
