//! Asynchronous execution: read-backs that do not block the device, and launches that are recorded once and replayed.
//!
//! A page has one list of read-backs that were dropped while pending. It belongs to the device, and a WASM module has one device:
//! the list holds staging buffers of that device until their copies end, however long the model that asked for them is gone.

use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use burn::backend::{Backend, BackendTypes, Dispatch};
#[cfg(feature = "wgpu")]
use burn::backend::{BackendTensor, DispatchTensorKind};
use burn::tensor::{Device, ExecutionError, Int, Tensor};

use crate::count::{self, Cost, Counting};

/// A pending read-back of integers; resolves to the device's error message on failure.
///
/// The staging buffer is reused as soon as it is released, whether or not the copy has finished, and a device refuses to
/// write to a buffer with a pending copy. So a dropped read-back is still waited for: natively on drop, in a page later.
pub struct Readback(Option<Pending>);

type Pending = Pin<Box<dyn Future<Output = Result<Vec<i32>, String>>>>;

impl Future for Readback {
    type Output = Result<Vec<i32>, String>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context) -> Poll<Self::Output> {
        let Some(arriving) = &mut self.0 else {
            return Poll::Ready(Err("these numbers were taken before".to_owned()));
        };
        let polled = arriving.as_mut().poll(context);
        if polled.is_ready() {
            self.0 = None;
        }
        polled
    }
}

impl Drop for Readback {
    fn drop(&mut self) {
        let Some(arriving) = self.0.take() else {
            return;
        };
        #[cfg(target_family = "wasm")]
        ABANDONED.with_borrow_mut(|abandoned| abandoned.push(arriving));
        #[cfg(not(target_family = "wasm"))]
        drop(burn::tensor::read_sync(arriving));
    }
}

#[cfg(target_family = "wasm")]
thread_local! {
    /// Dropped read-backs of the module's device that are still pending; polled whenever a new one starts.
    static ABANDONED: core::cell::RefCell<Vec<Pending>> = const { core::cell::RefCell::new(vec![]) };
}

/// Releases the dropped read-backs that have completed.
fn look_after_the_abandoned() {
    #[cfg(target_family = "wasm")]
    ABANDONED.with_borrow_mut(|abandoned| {
        let mut context = Context::from_waker(Waker::noop());
        abandoned.retain_mut(|arriving| arriving.as_mut().poll(&mut context).is_pending());
    });
}

/// Starts a read-back: the copy is queued behind the launches so far and before later ones, which may overwrite the same
/// tensor. `into_data_async` of a tensor would copy only when awaited, natively even later.
pub fn start(numbers: Tensor<1, Int>) -> Readback {
    look_after_the_abandoned();
    // Counted now: the copy may complete at once, or only when awaited.
    count::read_back(size_of::<i32>() * numbers.dims()[0]);
    #[cfg(feature = "wgpu")]
    if let DispatchTensorKind::Cube(BackendTensor::Int(tensor)) =
        numbers.clone().into_dispatch().kind
    {
        use cubecl::server::CopyDescriptor;

        return started(async move {
            let (shape, strides) = (tensor.meta.shape().clone(), tensor.meta.strides().clone());
            let handle = tensor.handle.binding();
            let copy = CopyDescriptor::new(handle, shape, strides, size_of::<i32>());
            let bytes = tensor.client.read_one_tensor_async(copy).await;
            let bytes = bytes.map_err(|e| format!("{e:?}"))?;
            let numbers = bytes.chunks_exact(4);
            Ok(numbers
                .map(|n| i32::from_le_bytes([n[0], n[1], n[2], n[3]]))
                .collect())
        });
    }
    started(async move {
        let data = numbers
            .into_data_async()
            .await
            .map_err(|e| format!("{e:?}"))?;
        Ok(data.iter::<i32>().collect())
    })
}

/// Completion of device work, or the device's error message.
pub type Done = Pin<Box<dyn Future<Output = Result<(), String>>>>;

/// Completion of everything launched so far on a tensor's device, without a read-back. Submits at once.
pub fn done<const D: usize>(tensor: &Tensor<D>) -> Done {
    #[cfg(feature = "wgpu")]
    if let DispatchTensorKind::Cube(BackendTensor::Float(tensor)) =
        tensor.clone().into_dispatch().kind
    {
        count::flushed();
        let mut done = Box::pin(tensor.client.sync());
        // The future registers its callback on the first poll.
        return match done.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(done) => Box::pin(core::future::ready(done.map_err(|e| format!("{e:?}")))),
            Poll::Pending => Box::pin(async { done.await.map_err(|e| format!("{e:?}")) }),
        };
    }
    // A device that computes synchronously has completed already.
    let _ = tensor;
    Box::pin(core::future::ready(Ok(())))
}

/// Polls a future once, so that everything before its first wait has run.
fn started(future: impl Future<Output = Result<Vec<i32>, String>> + 'static) -> Readback {
    let mut future = Box::pin(future);
    match future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        Poll::Ready(numbers) => Readback(Some(Box::pin(core::future::ready(numbers)))),
        Poll::Pending => Readback(Some(future)),
    }
}

/// Recorded launches that can be replayed without the host code that made them.
///
/// They read and write the buffers they were recorded with. The owner of the recording must keep alive what it does not
/// hold itself: weights, caches, and all tensors made before it.
pub struct Recorded {
    graph: <Dispatch as BackendTypes>::GraphPrimitive,
    device: Device,
    cost: Cost,
    /// Whether it has not been replayed yet.
    fresh: bool,
}

/// Why a recording failed.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The device does not support recording, or cannot record now. The work did not run.
    #[error("the device does not record launches: {0:?}")]
    Refused(ExecutionError),
    /// The device cannot record this work. The work ran on the host, but its launches were discarded. Its host side effects
    /// remain.
    #[error("the device discarded what it recorded: {0:?}")]
    Discarded(ExecutionError),
}

/// A device that records the launches between `start` and `stop`.
trait Capture {
    type Graph;
    fn prepare(&self) -> Result<(), ExecutionError>;
    fn start(&self) -> Result<(), ExecutionError>;
    fn stop(&self) -> Result<Self::Graph, ExecutionError>;
}

impl Capture for Device {
    type Graph = <Dispatch as BackendTypes>::GraphPrimitive;

    fn prepare(&self) -> Result<(), ExecutionError> {
        count::flushed();
        Dispatch::graph_prepare(self.as_dispatch())
    }

    fn start(&self) -> Result<(), ExecutionError> {
        Dispatch::graph_start_capture(self.as_dispatch())
    }

    fn stop(&self) -> Result<Self::Graph, ExecutionError> {
        Dispatch::graph_stop_capture(self.as_dispatch())
    }
}

/// A capture that is prepared or open. Stopped on drop: until then the device refuses any other capture.
struct Prepared<'a, C: Capture>(Option<&'a C>);

impl<C: Capture> Drop for Prepared<'_, C> {
    fn drop(&mut self) {
        if let Some(capture) = self.0.take() {
            capture.stop().ok();
        }
    }
}

fn capture<C: Capture, T>(
    device: &C,
    work: impl FnOnce() -> T,
) -> Result<(C::Graph, T), RecordError> {
    // A refusal here may be due to another open capture, which must not be stopped.
    device.prepare().map_err(RecordError::Refused)?;
    let mut prepared = Prepared(Some(device));
    device.start().map_err(RecordError::Refused)?;
    let made = work();
    prepared.0 = None;
    let graph = device.stop().map_err(RecordError::Discarded)?;
    Ok((graph, made))
}

impl Recorded {
    /// Records the launches of `work` without running them. `work` must neither upload to the device nor read from it, and
    /// its kernels must have run before.
    ///
    /// # Errors
    /// The device does not record at all, or not this work: the error says whether `work` ran.
    pub fn record<T>(device: &Device, work: impl FnOnce() -> T) -> Result<(Self, T), RecordError> {
        let cost = Counting::start();
        let (graph, made) = capture(device, work)?;
        let recorded = Self {
            graph,
            device: device.clone(),
            cost: cost.spent(),
            fresh: true,
        };
        Ok((recorded, made))
    }

    /// Replays the launches.
    ///
    /// # Safety
    /// Every tensor that the recorded work read or wrote and does not return must still exist.
    ///
    /// # Errors
    /// The device fails.
    pub unsafe fn replay(&mut self) -> Result<(), ExecutionError> {
        // SAFETY: guaranteed by the caller.
        unsafe { Dispatch::graph_replay(self.device.as_dispatch(), &self.graph) }?;
        count::replayed(&self.cost, core::mem::replace(&mut self.fresh, false));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    /// A device that fails at one of the calls and logs all of them.
    struct Failing {
        at: &'static str,
        calls: RefCell<Vec<&'static str>>,
    }

    impl Failing {
        fn at(at: &'static str) -> Self {
            Self {
                at,
                calls: RefCell::default(),
            }
        }

        fn call(&self, name: &'static str) -> Result<(), ExecutionError> {
            self.calls.borrow_mut().push(name);
            match name == self.at {
                true => Err(ExecutionError::WithContext {
                    reason: "injected".into(),
                }),
                false => Ok(()),
            }
        }
    }

    impl Capture for Failing {
        type Graph = ();

        fn prepare(&self) -> Result<(), ExecutionError> {
            self.call("prepare")
        }

        fn start(&self) -> Result<(), ExecutionError> {
            self.call("start")
        }

        fn stop(&self) -> Result<(), ExecutionError> {
            self.call("stop")
        }
    }

    #[test]
    fn a_recording_that_fails_says_whether_its_work_ran_and_leaves_nothing_open() {
        for (at, ran, calls) in [
            ("", true, &["prepare", "start", "stop"][..]),
            ("prepare", false, &["prepare"]),
            ("start", false, &["prepare", "start", "stop"]),
            ("stop", true, &["prepare", "start", "stop"]),
        ] {
            let (device, work) = (Failing::at(at), Cell::new(false));
            let recorded = capture(&device, || work.set(true));
            assert_eq!(
                (work.get(), &device.calls.borrow()[..]),
                (ran, calls),
                "{at}"
            );
            match recorded {
                Ok(_) => assert_eq!(at, ""),
                Err(RecordError::Refused(_)) => assert!(!ran, "{at}"),
                Err(RecordError::Discarded(_)) => assert!(ran, "{at}"),
            }
        }
        // Same if the work panics.
        let device = Failing::at("");
        let work = || panic!("injected");
        let panicked = std::panic::AssertUnwindSafe(|| capture(&device, work).map(|(_, ())| ()));
        std::panic::catch_unwind(panicked).expect_err("it panics");
        assert_eq!(device.calls.borrow()[..], ["prepare", "start", "stop"]);
    }
}
