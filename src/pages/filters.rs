//! What templates do to text whose links need it as it is.
#![expect(unreachable_pub, reason = "askama's macro makes an item of its own that is public")]

/// See [`crate::text::clean`].
#[askama::filter_fn]
pub(crate) fn cleaned(text: impl AsRef<str>, _: &dyn askama::Values) -> askama::Result<String> {
    Ok(crate::text::clean(text.as_ref()))
}
