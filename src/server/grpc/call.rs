//! What every handler does first and last: find out on whose behalf it works and until when, and say no in one form.

use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};

use super::answer::leader_address;
use super::{REVISION, convert, error};
use crate::access::Caller;
use crate::error::{Effect, ServiceError};
use crate::service::{Context, Service};

/// A call that `bounds` has let in.
pub(super) struct Call<T> {
    pub(super) message: T,
    pub(super) context: Context,
}

/// Takes a request apart.
pub(super) fn open<T>(service: &Service, request: Request<T>) -> Result<Call<T>, Status> {
    let context = context(service, &request)?;
    Ok(Call { message: request.into_inner(), context })
}

/// On whose behalf a request is made, and until when.
pub(super) fn context<T>(service: &Service, request: &Request<T>) -> Result<Context, Status> {
    let Some(caller) = request.extensions().get::<Caller>() else {
        // A fault of ours, and nobody's way around the door.
        let reason = "the call was not let in".to_owned();
        return Err(refuse(service, ServiceError::Internal { reason, effect: Effect::No }));
    };
    Ok(service.context(caller.clone(), convert::timeout(request.metadata())))
}

/// The status of a refusal, with the state that it was decided by.
pub(super) fn refuse(service: &Service, error: ServiceError) -> Status {
    let mut status = error::status(&error, leader_address(service.replica()).as_deref());
    if let Some(revision) = error.revision() {
        status.metadata_mut().insert(REVISION, revision.into());
    }
    status
}

/// The answer to a read, with the revision of the state that it was read from.
pub(super) fn read<T>(message: T, revision: u64) -> Response<T> {
    let mut response = Response::new(message);
    response.metadata_mut().insert(REVISION, MetadataValue::from(revision));
    response
}
