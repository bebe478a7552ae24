//! Crash points: the places between which a process that dies, stops or panics must leave nothing that is paid twice or
//! lost. Each kind has its own list of them. Without the feature `failpoints` all of it is nothing, and none of the names
//! is in the program.

#[cfg(feature = "failpoints")]
use crate::runtime::failpoint::{self, Side};
#[cfg(feature = "failpoints")]
use crate::{batch, webhook};

/// A place in the protocol of one kind; `None`: what is done here is none.
pub trait Place: Copy {
    #[cfg(feature = "failpoints")]
    fn name(self) -> Option<&'static str>;
}

impl<P: Place> Place for Option<P> {
    #[cfg(feature = "failpoints")]
    fn name(self) -> Option<&'static str> {
        self.and_then(P::name)
    }
}

/// Declares the places of one kind, `Variant = "name"`, and with the feature `NAMES`, all names in their order.
macro_rules! places {
    ($($(#[$doc:meta])* $place:ident = $name:literal,)+) => {
        /// A side effect, or a write that precedes or follows one.
        #[derive(Clone, Copy, Debug)]
        #[cfg_attr(not(feature = "failpoints"), allow(dead_code))]
        pub enum Point {
            $($(#[$doc])* $place,)+
        }

        impl $crate::controller::points::Place for Point {
            #[cfg(feature = "failpoints")]
            fn name(self) -> Option<&'static str> {
                Some(match self {
                    $(Self::$place => $name,)+
                })
            }
        }

        /// Names of all places, in the order of the protocol.
        #[cfg(feature = "failpoints")]
        pub const NAMES: &[&str] = &[$($name,)+];
    };
}
pub(crate) use places;

/// Reads from the environment what is to fail; the error is one line.
#[cfg(feature = "failpoints")]
pub fn install() -> Result<(), String> {
    failpoint::install(&[batch::points::NAMES, webhook::points::NAMES].concat(), batch::points::SWITCHES)
}

pub fn before(place: impl Place) {
    #[cfg(feature = "failpoints")]
    place.name().into_iter().for_each(|name| failpoint::reached(name, Side::Before));
    #[cfg(not(feature = "failpoints"))]
    let _ = place;
}

pub fn after(place: impl Place) {
    #[cfg(feature = "failpoints")]
    place.name().into_iter().for_each(|name| failpoint::reached(name, Side::After));
    #[cfg(not(feature = "failpoints"))]
    let _ = place;
}

/// The work, with its place on either side, however it ends.
#[cfg(feature = "failpoints")]
pub fn around<T>(place: impl Place, work: impl Future<Output = T>) -> impl Future<Output = T> {
    // In a box, so that what holds it is no larger than without it.
    let work = Box::pin(work);
    async move {
        before(place);
        let done = work.await;
        after(place);
        done
    }
}

#[cfg(not(feature = "failpoints"))]
pub fn around<F: Future>(_: impl Place, work: F) -> F {
    work
}

/// Whether a test asks for this to be broken.
#[cfg(feature = "failpoints")]
pub fn is_broken(switch: &str) -> bool {
    failpoint::is_broken(switch)
}
