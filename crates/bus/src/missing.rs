use async_nats::jetstream::{
    ErrorCode,
    context::{ConsumerInfoError, ConsumerInfoErrorKind},
};

/// Tells whether the stream or the consumer does not exist.
pub(crate) fn is_missing(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut current = Some(error);
    while let Some(error) = current {
        if let Some(error) = error.downcast_ref::<async_nats::jetstream::Error>() {
            return [ErrorCode::STREAM_NOT_FOUND, ErrorCode::CONSUMER_NOT_FOUND]
                .contains(&error.error_code());
        }
        // This one tells its kind and drops the code.
        if let Some(error) = error.downcast_ref::<ConsumerInfoError>()
            && matches!(
                error.kind(),
                ConsumerInfoErrorKind::NotFound | ConsumerInfoErrorKind::StreamNotFound
            )
        {
            return true;
        }
        current = error.source();
    }
    false
}

/// Tells whether JetStream has answered, and not that it is unavailable for the moment.
pub(crate) fn is_refused(error: &(dyn std::error::Error + 'static)) -> bool {
    const UNAVAILABLE: usize = 503;
    let mut current = Some(error);
    while let Some(error) = current {
        if let Some(error) = error.downcast_ref::<async_nats::jetstream::Error>() {
            return error.code() != UNAVAILABLE;
        }
        current = error.source();
    }
    false
}
