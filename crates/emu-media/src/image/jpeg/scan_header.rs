//! The scan header (SOS).

/// A component of a scan: its index in the frame and its Huffman table indices.
pub struct ScanComponent {
    pub index: usize,
    pub dc: usize,
    pub ac: usize,
}

/// A scan header.
pub struct ScanHeader {
    pub components: Vec<ScanComponent>,
    /// Spectral selection: first and last coefficient, in zigzag order.
    pub start: usize,
    pub end: usize,
    /// Successive approximation: the bit position of the previous pass (0: first pass) and of this one.
    pub high: u32,
    pub low: u32,
}
