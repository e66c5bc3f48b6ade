//! What begins a scan.

/// One scan's component: index in the frame and the tables it uses.
pub struct ScanComponent {
    pub index: usize,
    pub dc: usize,
    pub ac: usize,
}

/// A scan header.
pub struct ScanHeader {
    pub components: Vec<ScanComponent>,
    /// First and last coefficient, in zigzag order.
    pub start: usize,
    pub end: usize,
    /// Successive approximation: bits sent before (0: first pass) and left after this scan.
    pub high: u32,
    pub low: u32,
}
