//! Everything about one plan as one JSON object.

use cachalot_plan::{Layout, explain, understood, upgrade};
use serde_json::{Value, json};

use super::answer::{DEPTHS, Question};

/// The object, as text.
pub(super) fn text(question: &Question<'_>) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(&object(question))? + "\n")
}

fn object(question: &Question<'_>) -> Value {
    let upgrades = question.upgrades();
    let advice = upgrade::advice(&question.upgrade_question(), &upgrades);
    let doubling = advice.first().map(|upgrade| &upgrade.what);
    let mut object = json!({
        "machine": question.machine,
        "understood": understood::understood(question.machine),
        "model": question.model,
        "note": question.subject.note,
        "runs": false,
        "upgrades": upgrades,
        "cheapest_doubling": doubling,
        "advice": advice,
    });
    match question.plan() {
        Ok(plan) => {
            object["runs"] = json!(true);
            let rates = DEPTHS.map(|depth| {
                json!({ "depth": depth, "decode": plan.prediction.decode(depth),
                        "prefill": plan.prediction.prefill(depth) })
            });
            object["rates"] = json!(rates);
            let layout = Layout::of(question.machine, question.model, &plan.fit, question.threads);
            object["layout"] = json!(layout);
            object["users"] = json!(plan.prediction.users);
            object["total"] = json!(plan.prediction.total(0));
            object["bound_by"] = json!(plan.prediction.bound());
            let rows = explain::explain(question.machine, question.model, &plan);
            let explained = rows.iter().map(|row| json!([row.name, row.value, row.formula]));
            object["explained"] = explained.collect();
            object["plan"] = json!(plan);
        }
        Err(error) => object["why_not"] = json!(error.to_string()),
    }
    object
}
