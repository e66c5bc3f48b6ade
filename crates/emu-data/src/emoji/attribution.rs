//! Authors and licences of the drawings.

use super::sources::{LABELS, Role, SETS};

/// The text of `ATTRIBUTION.md`.
pub fn attribution() -> String {
    let mut text = String::from(
        "# Attribution\n\n\
         The pictures of this data set are compositions. Drawings from the sets below were trimmed, scaled, turned,\n\
         mirrored, slightly recoloured and laid onto plain backgrounds.\n\n\
         ## Sets used for training (`train`, `val`, `t2`, `t3`, `fewshot-test`, `draw-test`)\n\n",
    );
    text.push_str(&table(Role::Train));
    text.push_str(
        "\nThe sets under CC BY 4.0 (creativecommons.org/licenses/by/4.0) ask that their authors be named, that the\n\
         licence be linked and that changes be said: keep this file with the data and with anything made from them.\n\n\
         ## Sets used for evaluation only (`t1`)\n\n",
    );
    text.push_str(&table(Role::Evaluation));
    text.push_str(
        "\nThese are under CC BY-SA 4.0 (creativecommons.org/licenses/by-sa/4.0). The shards in `t1` are adaptations of\n\
         them and are under the same licence. No weights are trained on them.\n\n\
         ## Names and keywords\n\n",
    );
    let (package, version, licence, author) = LABELS;
    text.push_str(&format!(
        "- `{package}` {version}, {licence}, by {author}\n"
    ));
    text
}

fn table(role: Role) -> String {
    let mut text = String::from(
        "| set | package | licence | drawn by | project |\n| --- | --- | --- | --- | --- |\n",
    );
    for set in SETS.iter().filter(|set| set.role == role) {
        text.push_str(&format!(
            "| {} | `{}` {} | {} | {} | {} |\n",
            set.id, set.package, set.version, set.licence, set.author, set.project
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_every_package_and_licence() {
        let text = attribution();
        for set in &SETS {
            assert!(text.contains(set.package) && text.contains(set.licence));
            assert!(text.contains(set.author));
        }
        assert!(text.contains(LABELS.0));
    }
}
