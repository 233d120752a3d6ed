//! What a watcher was sent, taken apart: the created reply, batches of events put together from
//! their pieces, progress, the cancellation. Refuses only what cannot be read.

use bytes::Bytes;
use flotilla_proto::Span;
use flotilla_proto::etcdserverpb::WatchResponse;
use flotilla_proto::etcdserverpb::watch_create_request::FilterType;
use flotilla_proto::mvccpb::KeyValue;

use crate::check::case::Case;
use crate::check::watch::Fault;
use crate::history::{Event, Received, Stamp, WatchRecord};

/// The watch id of what concerns all watchers of a stream.
const STREAM_WATCH_ID: i64 = -1;

/// One watcher and what it was sent.
#[derive(Clone, Debug)]
pub struct Transcript<'a> {
    /// The record it was read from.
    pub record: &'a WatchRecord,
    /// The created reply, if one came.
    pub created: Option<&'a WatchResponse>,
    /// True if the create request was refused.
    pub is_refused: bool,
    /// The first revision whose events are due.
    pub start: i64,
    /// Everything after the created reply, in order.
    pub deliveries: Vec<Delivery<'a>>,
}

/// One thing a watcher was told.
#[derive(Clone, Debug)]
pub enum Delivery<'a> {
    /// Events.
    Events(Batch),
    /// That everything up to a revision was sent.
    Progress {
        /// The revision.
        revision: i64,
        /// When it arrived.
        at: Stamp,
    },
    /// That nothing will follow.
    Canceled {
        /// The response.
        response: &'a WatchResponse,
        /// When it arrived.
        at: Stamp,
    },
}

/// The events of one response, or of all pieces of one.
#[derive(Clone, Debug)]
pub struct Batch {
    /// When the last piece arrived.
    pub at: Stamp,
    /// The revision in the header.
    pub header: i64,
    /// The events.
    pub events: Vec<Sent>,
    /// False if the stream broke before the last piece.
    pub is_whole: bool,
}

/// One event as it was sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Sent {
    /// The event.
    pub event: Event,
    /// The previous pair that came with it.
    pub prev_kv: Option<KeyValue>,
    /// Its place among the events of its revision, if the evidence has it there.
    pub place: Option<usize>,
}

impl<'a> Transcript<'a> {
    /// Reads a record.
    pub fn read(case: &Case<'_>, record: &'a WatchRecord) -> Result<Transcript<'a>, Fault> {
        let mut transcript = Transcript {
            record,
            created: None,
            is_refused: false,
            start: record.create.start_revision,
            deliveries: Vec::new(),
        };
        let mut open: Option<Batch> = None;
        for (position, received) in record.received.iter().enumerate() {
            transcript.take(case, position, received, &mut open)?;
        }
        // What is left of a broken stream was sent nevertheless.
        transcript.deliveries.extend(open.map(Delivery::Events));
        transcript.place(case);
        Ok(transcript)
    }

    /// The events in order, each with its batch.
    pub fn events(&self) -> impl Iterator<Item = (&Batch, &Sent)> {
        self.batches().flat_map(|batch| batch.events.iter().map(move |sent| (batch, sent)))
    }

    /// The batches in order.
    pub fn batches(&self) -> impl Iterator<Item = &Batch> {
        self.deliveries.iter().filter_map(|delivery| match delivery {
            Delivery::Events(batch) => Some(batch),
            Delivery::Progress { .. } | Delivery::Canceled { .. } => None,
        })
    }

    /// The keys that were asked for. An empty key stands for the lowest one.
    pub fn span(&self) -> Span {
        let key = match &self.record.create.key {
            key if key.is_empty() => Bytes::from_static(b"\0"),
            key => key.clone(),
        };
        Span::from_request(key, self.record.create.range_end.clone())
    }

    /// True if the watcher asked for this event.
    pub fn wants(&self, event: &Event) -> bool {
        self.span().contains(event.key()) && !self.is_filtered(event)
    }

    /// The events that were asked for in the revisions `first..=last`, in order, each with its
    /// revision and its place in it.
    pub fn due<'t>(
        &'t self,
        case: &'t Case<'_>,
        first: i64,
        last: i64,
    ) -> impl Iterator<Item = (i64, usize, &'t Event)> {
        let span = self.span();
        let all = case.timeline.events_between(first, last).flat_map(|(revision, events)| {
            events.iter().enumerate().map(move |(place, event)| (revision, place, event))
        });
        all.filter(move |(_, _, event)| span.contains(event.key()) && !self.is_filtered(event))
    }

    /// The first event in `..=last` that is due after the event sent `after`, or from the start
    /// if none was.
    pub fn next_due<'t>(
        &'t self,
        case: &'t Case<'_>,
        after: Option<&Sent>,
        last: i64,
    ) -> Option<&'t Event> {
        let first = after.map_or(self.start, |sent| sent.event.revision());
        let sent = after.map(|sent| (sent.event.revision(), sent.place));
        self.due(case, first, last)
            .find(|&(revision, place, _)| Some((revision, Some(place))) > sent)
            .map(|(_, _, event)| event)
    }

    fn is_filtered(&self, event: &Event) -> bool {
        let filter = if event.is_delete() { FilterType::Nodelete } else { FilterType::Noput };
        self.record.create.filters.contains(&filter.into())
    }

    fn take(
        &mut self,
        case: &Case<'_>,
        position: usize,
        received: &'a Received,
        open: &mut Option<Batch>,
    ) -> Result<(), Fault> {
        let response = &received.response;
        let header = response.header.as_ref().ok_or(Fault::NoHeader { position })?.revision;
        if header > case.head {
            return Err(Fault::HeaderBeyondHead { header, head: case.head });
        }
        let is_ended =
            self.is_refused || matches!(self.deliveries.last(), Some(Delivery::Canceled { .. }));
        match (self.created, response.created) {
            (Some(_), true) => return Err(Fault::CreatedAgain { position }),
            (None, false) => return Err(Fault::NotCreated { position }),
            (None, true) => return self.take_created(response, header),
            (Some(_), false) => {}
        }
        if is_ended {
            // A cancel request that crossed the cancellation is answered, and what concerns the
            // whole stream goes on.
            let is_for_others = response.canceled || response.watch_id == STREAM_WATCH_ID;
            if is_for_others && response.events.is_empty() {
                return Ok(());
            }
            return Err(Fault::SentAfterCancel { position });
        }
        let is_stray = match open {
            Some(_) => response.events.is_empty(),
            None => response.fragment && !self.record.create.fragment,
        };
        if is_stray {
            return Err(Fault::StrayFragment { position });
        }
        if response.events.is_empty() {
            self.deliveries.push(if response.canceled {
                Delivery::Canceled { response, at: received.at }
            } else {
                Delivery::Progress { revision: header, at: received.at }
            });
            return Ok(());
        }
        let mut batch = open.take().unwrap_or(Batch {
            at: received.at,
            header,
            events: Vec::new(),
            is_whole: false,
        });
        batch.at = received.at;
        batch.header = header;
        for message in &response.events {
            let event = Event::from_proto(message)?;
            batch.events.push(Sent { event, prev_kv: message.prev_kv.clone(), place: None });
        }
        if response.fragment {
            *open = Some(batch);
        } else {
            batch.is_whole = true;
            self.deliveries.push(Delivery::Events(batch));
        }
        Ok(())
    }

    fn take_created(&mut self, response: &'a WatchResponse, header: i64) -> Result<(), Fault> {
        if !response.events.is_empty() {
            return Err(Fault::CreatedWithEvents);
        }
        self.created = Some(response);
        self.is_refused = response.canceled;
        if self.start == 0 {
            // "From now on" is from the revision after the one in the reply.
            self.start = header + 1;
        }
        Ok(())
    }

    /// Finds each event in the evidence: the first event of its kind and key in its revision
    /// that no event just before it has found. An event sent twice finds the same place twice.
    fn place(&mut self, case: &Case<'_>) {
        let mut taken: Vec<(i64, usize)> = Vec::new();
        for delivery in &mut self.deliveries {
            let Delivery::Events(batch) = delivery else { continue };
            for sent in &mut batch.events {
                let revision = sent.event.revision();
                taken.retain(|(last, _)| *last == revision);
                let namesakes: Vec<usize> = case
                    .timeline
                    .events_at(revision)
                    .iter()
                    .enumerate()
                    .filter(|(_, event)| {
                        event.key() == sent.event.key()
                            && event.is_delete() == sent.event.is_delete()
                    })
                    .map(|(place, _)| place)
                    .collect();
                let is_free = |place: &&usize| !taken.contains(&(revision, **place));
                sent.place = namesakes.iter().find(is_free).or(namesakes.first()).copied();
                taken.extend(sent.place.map(|place| (revision, place)));
            }
        }
    }
}
