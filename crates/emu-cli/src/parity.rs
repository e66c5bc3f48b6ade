//! `emu parity`

use anyhow::{Result, bail};
use emu_kernels::device::open;
use emu_model::parity::Row;
use serde_json::{Value, json};

use crate::args::ParityArgs;
use crate::convert::against;
use crate::output::{json_line, print_now, spinner};

/// Compares this implementation with a folder of golden outputs, or a pack with its checkpoint.
pub fn run(args: &ParityArgs) -> Result<()> {
    let opened = open(args.device.choice())?;
    let waiting = spinner("");
    let (rows, skipped, uncompared) = match &args.against {
        Some(source) => (
            against::run(&args.folder, source, &opened.device)?,
            vec![],
            vec![],
        ),
        None => {
            let progress = |part: &str| waiting.set_message(part.to_owned());
            let report = emu_train::parity::run(&args.folder, &opened.device, progress)?;
            (report.rows, report.skipped, report.uncompared)
        }
    };
    waiting.finish_and_clear();
    let failed = rows.iter().filter(|row| !row.passes()).count();
    if args.json {
        rows.iter().try_for_each(|row| json_line(&json_row(row)))?;
        for (part, file) in &skipped {
            json_line(&json!({"skipped": part, "absent": file}))?;
        }
        json_line(&json!({
            "compared": rows.len(), "failed": failed, "uncompared": uncompared, "device": opened.name,
        }))?;
    } else {
        table(&rows)?;
        for (part, file) in &skipped {
            print_now(&format!("skipped: {part} ({file} is absent)\n"))?;
        }
        for name in &uncompared {
            print_now(&format!("not compared: {name}\n"))?;
        }
        print_now(&format!(
            "{} compared on {}, {failed} failed\n",
            rows.len(),
            opened.name
        ))?;
    }
    match failed {
        0 if rows.is_empty() => {
            bail!("Nothing was compared. Give a folder laid out like the reference.")
        }
        0 => Ok(()),
        n => bail!(
            "{n} of {} comparisons failed. Look for FAIL in the table.",
            rows.len()
        ),
    }
}

fn table(rows: &[Row]) -> Result<()> {
    let width = rows
        .iter()
        .map(|row| row.tensor.len())
        .max()
        .unwrap_or(0)
        .clamp(6, 90);
    print_now(&format!(
        "     {:width$}  {:>9}  {:>9}\n",
        "tensor", "error", "bound"
    ))?;
    for row in rows {
        let mark = if row.passes() { "ok" } else { "FAIL" };
        let note = row.note.as_deref().unwrap_or("");
        let (tensor, error) = (&row.tensor, row.error);
        let bound = match row.bound.is_finite() {
            true => format!("{:9.2e}", row.bound),
            false => "        -".into(),
        };
        print_now(&format!(
            "{mark:4} {tensor:width$}  {error:9.2e}  {bound} {note}\n"
        ))?;
    }
    Ok(())
}

fn json_row(row: &Row) -> Value {
    let mut line = json!({
        "tensor": row.tensor, "error": row.error, "bound": row.bound, "pass": row.passes(),
    });
    if let Some(note) = &row.note {
        line["note"] = json!(note);
    }
    line
}
