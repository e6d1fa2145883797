//! Live access as policy that is ready to be edited: reads what is asked for, and writes down what people hold today.
//!
//! [`read()`] asks AWS and changes nothing; [`draft()`] and `render` are pure. Taking ownership is another step, `adopt`.

mod draft;
mod names;
mod read;
mod render;

pub use draft::{Draft, Entitlement, Imported, Member, Owner, Unexplained, draft};
pub use names::account_names;
pub use read::{Found, ImportError, Request, Who, read};
