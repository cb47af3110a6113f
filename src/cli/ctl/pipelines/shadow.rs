//! A version beside the active one: begin, end, and how it does.

use api::proto::v1;

use super::Client;
use super::change::named;
use crate::cli::output::{Format, emit, listing, number, text};
use crate::cli::{Failure, wording};

pub async fn start(client: &Client, format: Format, name: String, version: u32, one_in: u32) -> Result<(), Failure> {
    let request = v1::ShadowPipelineRequest { name, version: Some(version), one_in: Some(one_in) };
    let answer = client.pipelines().shadow(request).await.map_err(|status| client.refusal(&status))?.into_inner();
    emit(format, &answer, || {
        let often = if one_in == 1 { "every decision".to_owned() } else { format!("1 of {one_in} decisions") };
        format!(
            "{}: version {version} runs beside {} for {often}, without effect; see: pallium ctl pipelines shadow {}",
            answer.name,
            named(answer.active),
            answer.name
        )
    })
}

pub async fn stop(client: &Client, format: Format, name: String) -> Result<(), Failure> {
    let request = v1::ShadowPipelineRequest { name, version: None, one_in: None };
    let answer = client.pipelines().shadow(request).await.map_err(|status| client.refusal(&status))?.into_inner();
    emit(format, &answer, || format!("{}: {} runs alone", answer.name, named(answer.active)))
}

pub async fn show(client: &Client, format: Format, name: Option<String>) -> Result<(), Failure> {
    if let Some(name) = name.clone() {
        // Refused when there is no such pipeline.
        client.pipelines().get(v1::GetPipelineRequest { name }).await.map_err(|status| client.refusal(&status))?;
    }
    let request = v1::ListShadowsRequest { name };
    let answer = client.pipelines().shadows(request).await.map_err(|status| client.refusal(&status))?.into_inner();
    emit(format, &answer, || match answer.shadows.as_slice() {
        [] => "no version has run beside an active one since this leader leads".to_owned(),
        shadows => shadows.iter().map(told).collect::<Vec<_>>().join("\n\n"),
    })
}

fn told(shadow: &v1::PipelineShadow) -> String {
    let of = |part: u64| match shadow.compared {
        0 => "-".to_owned(),
        all => format!("{:.1} %", part as f64 * 100.0 / all as f64),
    };
    let mut out = vec![
        format!(
            "{}: version {} beside {}, for 1 of {} decisions",
            shadow.pipeline,
            shadow.candidate,
            named(shadow.active),
            shadow.one_in
        ),
        format!(
            "{} compared, {} left out as it was slow; {:.1} µs each, {:.1} µs the active version",
            wording::count(shadow.compared, "decision"),
            shadow.skipped,
            shadow.candidate_us,
            shadow.active_us
        ),
    ];
    let rows = [
        ("anything differs", shadow.differ),
        ("the first host differs", shadow.first),
        ("other hosts are kept", shadow.kept),
        ("the same hosts in another order", shadow.order),
    ]
    .map(|(what, count)| vec![what.to_owned(), wording::grouped(count), of(count)]);
    out.push(listing(&[text("DIFFERENCE", 0), number("DECISIONS", 0), number("SHARE", 0)], &rows));
    if !shadow.examples.is_empty() {
        let host = |host: &Option<String>| host.clone().unwrap_or_else(|| "-".to_owned());
        let rows: Vec<Vec<String>> = shadow
            .examples
            .iter()
            .map(|example| {
                vec![
                    example.consumer.clone(),
                    host(&example.active_host),
                    host(&example.candidate_host),
                    example.active_kept.to_string(),
                    example.candidate_kept.to_string(),
                ]
            })
            .collect();
        let columns = [
            text("INSTANCE", 0),
            text("ACTIVE", 0),
            text("CANDIDATE", 0),
            number("KEPT", 1),
            number("CANDIDATE KEPT", 1),
        ];
        out.push(listing(&columns, &rows));
    }
    out.join("\n")
}
