//! Every endpoint asked for itself: what each node has of its own, or says of itself.

use llm_config_client::{Client, Error, Options};

use crate::args::Global;

/// A client for each endpoint, that knows no other.
pub(crate) fn each<'a>(
    global: &'a Global,
    options: &Options,
) -> Result<Vec<(&'a String, Client)>, Error> {
    let options = options.clone().follow_members(false);
    let of = |endpoint| Ok((endpoint, Client::with_options([endpoint], options.clone())?));
    global.endpoints.iter().map(of).collect()
}
