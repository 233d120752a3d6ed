//! Messages between the threads and actors of a node that must not be lost.

use actix::dev::ToEnvelope;
use actix::prelude::*;

/// Puts a message into an actor's mailbox, however full that is. For answers to what the actor's
/// machine asked for, of which there are no more than it has asked for; what comes from clients and
/// peers, and ticks, may be refused and takes `Addr::try_send`.
#[expect(clippy::disallowed_methods, reason = "who asked has bounded what is answered")]
pub fn deliver<A, M>(actor: &Addr<A>, message: M)
where
    A: Actor + Handler<M>,
    M: Message + Send,
    M::Result: Send,
    A::Context: ToEnvelope<A, M>,
{
    actor.do_send(message);
}
