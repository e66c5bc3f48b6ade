use super::*;

#[test]
fn paddings_are_those_of_tensorflow() {
    // Even and odd sides, as they result from 260 pixels.
    assert_eq!(same(260, 3, 2), (0, 1));
    assert_eq!(same(130, 3, 1), (1, 1));
    assert_eq!(same(65, 5, 2), (2, 2));
    assert_eq!(same(33, 3, 2), (1, 1));
    assert_eq!(same(17, 5, 2), (2, 2));
    assert_eq!(EfficientNetConfig::lite2().stride(), 32);
    // 96 channels before the second stage halves 130 pixels.
    let largest = EfficientNetConfig::lite2().largest_activation(260);
    assert_eq!(largest, 130 * 130 * 96);
}

#[test]
fn sizes_that_cannot_be_are_named() {
    assert!(EfficientNetConfig::lite2().validate().is_ok());
    let broken = |change: fn(&mut EfficientNetConfig)| {
        let mut config = EfficientNetConfig::lite2();
        change(&mut config);
        config.validate().expect_err("wrong").to_string()
    };
    assert!(broken(|c| c.stem = 0).contains("efficientnet.stem is 0"));
    assert!(broken(|c| c.stages.clear()).contains("no stage"));
    assert!(broken(|c| c.stages[2].kernel = 4).contains("kernel is 4"));
    assert!(broken(|c| c.stages[0].expand = 1 << 40).contains("expand is"));
}
