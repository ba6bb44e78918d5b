//! What a lead fetches over the WAN, and why.

use super::Effect;
use super::context::Context;
use super::state::{Flight, Role};
use super::wan::next_run;
use crate::core::chunkset::ChunkSet;
use crate::core::ledger::WanReason;

impl Flight {
    /// Gets the manifest: from a member that has it, else over the WAN.
    pub(super) fn lead_manifest(&mut self, cx: &mut Context) {
        let Role::Lead(lead) = &self.role else { return };
        let failures = self.manifest_failures() as usize;
        let from = lead.with_manifest.iter().filter(|node| cx.is_member(node)).nth(failures).copied();
        self.fetch_manifest(cx, from);
        let awaits = self.manifest.is_none() && from.is_none();
        if let Role::Lead(lead) = &mut self.role {
            lead.awaits_manifest = awaits;
        }
    }

    /// Asks the origin for what no member holds.
    pub(super) fn pull(&mut self, cx: &mut Context) {
        if self.heir(cx).is_some() {
            return; // it pulls the rest
        }
        let (Some(manifest), Role::Lead(lead)) = (self.manifest.clone(), &mut self.role) else { return };
        if lead.retry_at.is_some_and(|at| at > cx.now) {
            return;
        }
        lead.retry_at = None;
        if lead.runs.len() >= cx.config.wan_runs {
            return;
        }
        let forced = lead.forced.difference(&self.swarm.reachable(cx.now));
        let mut need = ChunkSet::full(manifest.count()).difference(&self.swarm.covered());
        need.union_with(&forced);
        need = need.difference(&self.held).difference(&lead.pulling()).difference(self.swarm.asked());
        let (damaged, inherited) = (&self.damaged, &self.inherited);
        let busy = if forced.is_empty() { ChunkSet::new() } else { self.swarm.busy(cx.now) };
        let by_policy = !cx.config.shares && cx.has_members();
        let reason_of = |chunk| match chunk {
            chunk if damaged.contains(chunk) => WanReason::HashFailure,
            chunk if busy.contains(chunk) => WanReason::PeerBusy,
            chunk if forced.contains(chunk) => WanReason::NoPeer,
            chunk if inherited.contains(chunk) => WanReason::Takeover,
            _ if by_policy => WanReason::Policy,
            _ => WanReason::Cold,
        };
        let stored = need.iter().filter(|&chunk| !manifest.is_repeat(chunk));
        let need_bytes: u64 =
            stored.filter_map(|chunk| manifest.chunk(chunk)).map(|chunk| u64::from(chunk.stored)).sum();
        while lead.runs.len() < cx.config.wan_runs && !need.is_empty() {
            let (chunks, reason) = next_run(&manifest, &need, self.cursor, reason_of);
            if chunks.is_empty() {
                break;
            }
            if lead.runs.is_empty() && lead.failures == 0 {
                lead.progress = cx.now;
            }
            lead.last_run += 1;
            let run: ChunkSet = chunks.iter().copied().collect();
            need = need.difference(&run);
            lead.runs.insert(lead.last_run, run);
            let (blob, run, best) = (self.blob, lead.last_run, *cx.wan_best);
            cx.act(Effect::FetchWan { blob, run, chunks, reason, need: need_bytes, best });
        }
    }
}
