use super::*;

use std::collections::BTreeMap;

fn run(name: &str, losses: &[f64]) -> Run {
    let points = losses.iter().enumerate();
    let loss = Curve {
        points: points.map(|(i, loss)| (i as u64, *loss)).collect(),
        not_finite: 0,
    };
    Run {
        name: name.into(),
        stage: "pretrain".into(),
        steps: losses.len() as u64,
        seconds: 3725.0,
        curves: vec![("loss".into(), loss)],
        settings: BTreeMap::from([("seed".into(), "3".into()), ("batch".into(), "4".into())]),
        ..Run::default()
    }
}

#[test]
fn a_page_has_curves_figures_samples_and_settings() {
    let mut shown = run("runs/one", &[3.0, 1.0, 2.0]);
    shown.notes = vec![(1, "it diverges".into())];
    shown.samples = vec![(
        2,
        vec![
            Sample {
                name: "a.png".into(),
                shown: Shown::Picture("image/png", b"PNG".to_vec()),
            },
            Sample {
                name: "a.txt".into(),
                shown: Shown::Text("said".into()),
            },
            Sample {
                name: "a.bin".into(),
                shown: Shown::Nothing("it is too large"),
            },
        ],
    )];
    shown.curves.push((
        "held.loss".into(),
        Curve {
            points: vec![],
            not_finite: 2,
        },
    ));
    let page = page(&shown, None);
    for part in [
        "<title>runs/one</title>",
        "<td>1 h 2 min</td>",
        "<td>3 <small>at 0</small></td><td>2 <small>at 2</small></td><td>1 <small>at 1</small></td>",
        "No finite number at 2 steps.",
        "<th scope=\"row\">step 1</th><td>it diverges</td>",
        "src=\"data:image/png;base64,UE5H\"",
        "<pre>said</pre>",
        "a.bin is not shown: it is too large.",
        "2 settings<",
    ] {
        assert!(page.contains(part), "{part} is missing in {page}");
    }
    assert!(!page.contains("differ"));
    // Nothing is fetched.
    assert!(!page.contains("http") && !page.contains("<script"));
}

#[test]
fn two_runs_share_charts_and_show_what_differs() {
    let mut other = run("runs/two", &[5.0, 4.0]);
    other.settings.insert("batch".into(), "8".into());
    other.settings.insert("ema".into(), "0.99".into());
    let page = page(&run("runs/one", &[3.0, 1.0]), Some(&other));
    assert_eq!(page.matches("<polyline").count(), 2);
    assert!(page.contains("class=\"run0\" points") && page.contains("class=\"run1\" points"));
    assert!(page.contains("2 settings differ") && page.contains("1 settings are the same"));
    assert!(page.contains("<th scope=\"row\">batch</th><td>4</td><td>8</td>"));
    assert!(page.contains("<th scope=\"row\">ema</th><td>–</td><td>0.99</td>"));
}

#[test]
fn what_a_run_says_is_text() {
    let bad = "<script>alert('&')</script>\"";
    let mut shown = run(bad, &[1.0, 2.0]);
    shown.stage = bad.into();
    shown.best = Some(bad.into());
    shown.notes = vec![(1, bad.into())];
    shown.curves[0].0 = bad.into();
    shown.settings.insert(bad.into(), bad.into());
    shown.samples = vec![(
        1,
        vec![Sample {
            name: bad.into(),
            shown: Shown::Text(bad.into()),
        }],
    )];
    let page = page(&shown, None);
    assert!(!page.contains("<script"));
    assert!(page.contains("&lt;script&gt;alert(&#39;&amp;&#39;)&lt;/script&gt;&quot;"));
}

#[test]
fn a_run_without_metrics_says_so() {
    let page = page(
        &Run {
            name: "new".into(),
            ..Run::default()
        },
        None,
    );
    assert!(page.contains("no metrics yet"));
}
