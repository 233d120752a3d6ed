use std::collections::BTreeMap;

use super::*;
use crate::GroupId;
use crate::NodeId;
use crate::memory::MemoryView;
use crate::mvcc::{Applier, NO_HEAD};
use crate::proto::internal::Effect;
use crate::spine::ranges::{Range, Ranges};
use crate::view::Batch;
