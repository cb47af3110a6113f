//! Every server-side protocol of pallium: translation only, no decision is made here.

pub mod proto;
