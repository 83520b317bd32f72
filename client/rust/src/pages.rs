use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::vec::IntoIter;

use tokio_stream::Stream;

use crate::errors::{Error, Result};

/// Items of a page and the token of the next one, empty after the last.
pub(crate) type Page<T> = (Vec<T>, String);
type Fetching<T> = Pin<Box<dyn Future<Output = Result<Page<T>>> + Send>>;

/// Items of a list, from the first page to the last, fetched as they are used. An error is the last item.
pub struct Pages<T> {
    fetch: Box<dyn FnMut(String) -> Fetching<T> + Send>,
    fetching: Option<Fetching<T>>,
    token: String,
    items: IntoIter<T>,
}

impl<T> Pages<T> {
    pub(crate) fn new<F, Fut>(token: String, mut fetch: F) -> Self
    where
        F: FnMut(String) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Page<T>>> + Send + 'static,
    {
        let first = Box::pin(fetch(token.clone()));
        let fetch = Box::new(move |token| Box::pin(fetch(token)) as Fetching<T>);
        Self { fetch, fetching: Some(first), token, items: IntoIter::default() }
    }
}

impl<T: Unpin> Stream for Pages<T> {
    type Item = Result<T>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let pages = self.get_mut();
        loop {
            if let Some(item) = pages.items.next() {
                return Poll::Ready(Some(Ok(item)));
            }
            let Some(fetching) = &mut pages.fetching else { return Poll::Ready(None) };
            let page = ready!(fetching.as_mut().poll(cx));
            pages.fetching = None;
            let (items, next) = match page {
                Ok(page) => page,
                Err(error) => return Poll::Ready(Some(Err(error))),
            };
            pages.items = items.into_iter();
            if next == pages.token && !next.is_empty() {
                // No sound server does that, and the list would never end.
                return Poll::Ready(Some(Err(Error::Invalid("the server returned the same page twice".into()))));
            }
            if !next.is_empty() {
                pages.token.clone_from(&next);
                pages.fetching = Some((pages.fetch)(next));
            }
        }
    }
}
