use std::collections::VecDeque;

use prost::Message;
use prost::bytes::{BufMut, Bytes, BytesMut};

use crate::errors::{Error, Result};
use crate::proto::{BatchReceipt, Event, ProducerBatch};

const MAX_BATCH_EVENTS: usize = 1_000;
const MAX_EVENT_BYTES: usize = 1 << 20;
const MAX_BATCH_BYTES: usize = MAX_EVENT_BYTES - (64 << 10); // less what a batch's own fields may take
const FULL_EVENTS: usize = 250;
const FULL_BYTES: usize = 128 << 10;
const MAX_IN_FLIGHT: usize = 4;
/// Field `batches` of PublishEventsRequest: number 1, with a length.
const BATCHES: u8 = 1 << 3 | 2;

/// Numbers of events, batches that are made of them, and each batch until a receipt covers it. Makes no calls.
///
/// Events are serialized when they are put in, and batches when they are cut: a batch is resent byte for byte.
pub(crate) struct Outbox {
    address: ProducerBatch, // without events; `create` until the first receipt
    queued: VecDeque<Vec<u8>>,
    kept: VecDeque<Batch>, // without a receipt
    sent: usize,           // how many of them were sent on the present call
    next: i64,             // number of the first queued event
    pub(crate) bytes: usize,
    pub(crate) receipt: Option<BatchReceipt>, // of the last batch that was stored
    pub(crate) durable: i64,                  // number of the last durable event
}

struct Batch {
    request: Bytes,
    bytes: usize, // of its events
    first: i64,
    last: i64,
}

/// Serialize an event as a field of a batch. Fails for one that no batch can hold.
pub(crate) fn encode(event: Event) -> Result<Vec<u8>> {
    let bytes = event.encoded_len();
    if bytes > MAX_EVENT_BYTES {
        return Err(Error::Invalid(format!("an event has {bytes} bytes, and at most {MAX_EVENT_BYTES} can be published")));
    }
    // A message with one field is that field.
    Ok(ProducerBatch { events: vec![event], ..Default::default() }.encode_to_vec())
}

impl Outbox {
    pub(crate) fn new(address: ProducerBatch) -> Self {
        Self { address, queued: VecDeque::new(), kept: VecDeque::new(), sent: 0, next: 1, bytes: 0, receipt: None, durable: 0 }
    }

    /// Queue an event that was encoded.
    pub(crate) fn put(&mut self, event: Vec<u8>) {
        self.bytes += event.len();
        self.queued.push_back(event);
    }

    /// Number of the last event that was queued.
    pub(crate) fn last(&self) -> i64 {
        self.next + self.queued.len() as i64 - 1
    }

    /// Whether all events are durable.
    pub(crate) fn is_empty(&self) -> bool {
        self.queued.is_empty() && self.kept.is_empty()
    }

    /// Return the batch to send now, as a request: first those of a call that was cut, then new ones. With nothing in flight
    /// all that is queued is sent; after other batches only a full one, so that a busy producer makes large ones.
    pub(crate) fn next_request(&mut self) -> Option<Bytes> {
        if self.sent == self.kept.len() {
            let is_full = || self.queued.len() >= FULL_EVENTS || self.has_full_bytes();
            if self.queued.is_empty() || self.sent >= MAX_IN_FLIGHT || self.sent > 0 && !is_full() {
                return None;
            }
            self.cut_batch();
        }
        self.sent += 1;
        Some(self.kept[self.sent - 1].request.clone())
    }

    fn has_full_bytes(&self) -> bool {
        let mut bytes = 0;
        self.queued.iter().any(|event| {
            bytes += event.len();
            bytes >= FULL_BYTES
        })
    }

    fn cut_batch(&mut self) {
        let (mut count, mut bytes) = (0, 0);
        for event in self.queued.iter().take(MAX_BATCH_EVENTS) {
            if count > 0 && bytes + event.len() > MAX_BATCH_BYTES {
                break;
            }
            count += 1;
            bytes += event.len();
        }
        let events: Vec<_> = self.queued.drain(..count).collect();
        let first = self.next;
        self.next += count as i64;
        let request = self.request(first, &events, bytes);
        self.kept.push_back(Batch { request, bytes, first, last: self.next - 1 });
    }

    /// Return an empty batch as a request.
    pub(crate) fn heartbeat(&mut self) -> Bytes {
        self.request(0, &[], 0)
    }

    fn request(&mut self, first: i64, events: &[Vec<u8>], bytes: usize) -> Bytes {
        self.address.first_producer_sequence = first;
        let length = self.address.encoded_len() + bytes;
        let mut request = BytesMut::with_capacity(length + 16);
        request.put_u8(BATCHES);
        // Neither fails: the buffer grows.
        let _ = prost::encode_length_delimiter(length, &mut request);
        let _ = self.address.encode(&mut request);
        for event in events {
            request.put_slice(event);
        }
        request.freeze()
    }

    /// Drop what a receipt covers; return whether that was anything.
    pub(crate) fn acknowledge(&mut self, receipt: BatchReceipt) -> bool {
        self.address.create = None;
        let mut is_new = false;
        while let Some(batch) = self.kept.front().filter(|batch| batch.last <= receipt.last_producer_sequence) {
            self.bytes -= batch.bytes;
            self.durable = batch.last;
            self.kept.pop_front();
            self.sent = self.sent.saturating_sub(1);
            is_new = true;
        }
        if is_new {
            self.receipt = Some(receipt);
        }
        is_new
    }

    /// Send all kept batches again, since the call that carried them has ended.
    pub(crate) fn rewind(&mut self) {
        self.sent = 0;
    }

    /// Whether a batch that begins with a number is kept.
    pub(crate) fn holds(&self, first: i64) -> bool {
        self.kept.iter().any(|batch| batch.first == first)
    }

    /// Drop all events; return how many were not durable.
    pub(crate) fn clear(&mut self) -> usize {
        let kept: i64 = self.kept.iter().map(|batch| batch.last - batch.first + 1).sum();
        let lost = self.queued.len() + kept as usize;
        self.queued.clear();
        self.kept.clear();
        (self.sent, self.bytes) = (0, 0);
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{PublishEventsRequest, RunSettings};

    fn outbox() -> Outbox {
        let create = Some(RunSettings { name: "noter".into(), ..Default::default() });
        Outbox::new(ProducerBatch { run_id: "run".into(), create, ..Default::default() })
    }

    fn event(number: usize) -> Vec<u8> {
        encode(Event { event_id: number.to_string(), ..Default::default() }).unwrap()
    }

    fn batch(request: &Bytes) -> ProducerBatch {
        PublishEventsRequest::decode(request.clone()).unwrap().batches.remove(0)
    }

    #[test]
    fn batches_hold_all_events_in_order() {
        let mut outbox = outbox();
        (0..2_500).for_each(|number| outbox.put(event(number)));
        let batches: Vec<_> = std::iter::from_fn(|| outbox.next_request()).map(|request| batch(&request)).collect();
        assert_eq!(batches.iter().map(|batch| batch.events.len()).collect::<Vec<_>>(), [1_000, 1_000, 500]);
        assert_eq!(batches.iter().map(|batch| batch.first_producer_sequence).collect::<Vec<_>>(), [1, 1_001, 2_001]);
        assert!(batches.iter().all(|batch| batch.create.is_some() && batch.run_id == "run"));
    }

    #[test]
    fn a_call_that_was_cut_leaves_the_batches_to_resend() {
        let mut outbox = outbox();
        outbox.put(event(1));
        let first = outbox.next_request().unwrap();
        outbox.put(event(2));
        assert_eq!(outbox.next_request(), None); // a small batch waits for the one in flight
        outbox.rewind();
        assert_eq!(outbox.next_request(), Some(first));
        assert!(outbox.acknowledge(BatchReceipt { last_producer_sequence: 1, ..Default::default() }));
        let second = batch(&outbox.next_request().unwrap());
        assert_eq!((second.first_producer_sequence, second.create), (2, None));
        assert!(outbox.holds(2) && !outbox.holds(1));
        assert_eq!(outbox.clear(), 1);
        assert!(outbox.is_empty() && outbox.bytes == 0);
    }
}
