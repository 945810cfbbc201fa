//! Who may do what, and who did what: tokens, roles, bans, the audit log and keys.
//!
//! A change goes to the leader like a write. It needs no idempotency key: what is done is not done twice, with one
//! exception, which is harmless and named where it is.

use tonic::transport::Channel;

use crate::client::{ANSWER_BYTES_MAX, Client, Effect};
use crate::error::Error;
use crate::v1;
use crate::v1::security_service_client::SecurityServiceClient;

macro_rules! calls {
    ($effect:expr; $($(#[$doc:meta])* $name:ident($request:ident) -> $response:ident;)*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        /// [`Error::Rejected`], [`Error::NotSent`], and for changes [`Error::OutcomeUnknown`].
        pub async fn $name(&self, request: v1::$request) -> Result<v1::$response, Error> {
            let response = self
                .call(&$effect, request, |channel, request| async move {
                    security(channel).$name(request).await
                })
                .await?;
            Ok(response.into_inner())
        }
    )*};
}

impl Client {
    calls! {
        Effect::Change;
        /// Makes a token. An attempt whose answer was lost may leave one behind whose text nobody knows;
        /// [`Client::list_tokens`] shows it.
        create_token(CreateTokenRequest) -> CreateTokenResponse;
        /// Revokes a token: nobody is let in with it any more.
        revoke_token(RevokeTokenRequest) -> RevokeTokenResponse;
        /// Makes a role, or replaces it.
        put_role(PutRoleRequest) -> PutRoleResponse;
        /// Deletes a role. Who has it loses what it allows.
        delete_role(DeleteRoleRequest) -> DeleteRoleResponse;
        /// Lets an address in again.
        lift_ban(LiftBanRequest) -> LiftBanResponse;
        /// Changes how long audit records stay.
        set_audit_retention(SetAuditRetentionRequest) -> SetAuditRetentionResponse;
        /// Exchanges data keys, or puts them under another master key.
        rotate_keys(RotateKeysRequest) -> RotateKeysResponse;
    }

    // What was just changed is seen on the leader first.
    calls! {
        Effect::ReadOfLeader;
        /// Reads all tokens; their texts are not among what is kept.
        list_tokens(ListTokensRequest) -> ListTokensResponse;
        /// Reads a role; `NOT_FOUND` when there is none (see [`Error::is_not_found`]).
        get_role(GetRoleRequest) -> GetRoleResponse;
        /// Reads all roles, built-in ones included.
        list_roles(ListRolesRequest) -> ListRolesResponse;
        /// Reads the bans that last.
        list_bans(ListBansRequest) -> ListBansResponse;
        /// Reads how long audit records stay.
        get_audit_retention(GetAuditRetentionRequest) -> GetAuditRetentionResponse;
        /// Reads which keys there are; the keys themselves do not leave the nodes.
        list_keys(ListKeysRequest) -> ListKeysResponse;
    }

    calls! {
        Effect::Read;
        /// Who this client is to the node that answers, and what it may do.
        who_am_i(WhoAmIRequest) -> WhoAmIResponse;
        /// Walks the chain of audit records of the node that answers; give it time with
        /// [`Options::attempt_timeout`](crate::Options::attempt_timeout).
        verify_audit(VerifyAuditRequest) -> VerifyAuditResponse;
    }

    /// Reads one page of the audit log.
    ///
    /// # Errors
    /// [`Error::Rejected`], or [`Error::NotSent`] when no node answered before the deadline.
    pub async fn list_audit(
        &self,
        mut request: v1::ListAuditRequest,
    ) -> Result<v1::ListAuditResponse, Error> {
        request.read = self.in_session(request.read);
        let response = self
            .call(&Effect::Read, request, |channel, request| async move {
                security(channel).list_audit(request).await
            })
            .await?;
        Ok(response.into_inner())
    }
}

fn security(channel: Channel) -> SecurityServiceClient<Channel> {
    SecurityServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}
