//! One page of metrics, read: sums over labels, and quantiles of what was observed between two pages.

use std::collections::BTreeMap;

/// What `/metrics` of one node said.
#[derive(Debug, Default)]
pub struct Sample {
    /// By name: labels and value of each series.
    series: BTreeMap<String, Vec<(String, f64)>>,
}

impl Sample {
    /// Reads a page; lines that are none of a page are left out.
    pub fn read(page: &str) -> Self {
        let mut sample = Self::default();
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse() else { continue };
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let labels = labels.trim_end_matches('}').to_owned();
            sample.series.entry(name.to_owned()).or_default().push((labels, value));
        }
        sample
    }

    /// The sum of all series of a name whose labels hold all of these texts.
    pub fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let of_name = self.series.get(name).into_iter().flatten();
        let wanted = of_name.filter(|(has, _)| labels.iter().all(|label| has.contains(label)));
        // The sum of nothing would be a negative zero.
        wanted.fold(0.0, |sum, (_, value)| sum + value)
    }

    /// The same of series whose labels do not hold a text.
    pub fn sum_without(&self, name: &str, label: &str) -> f64 {
        self.sum(name, &[]) - self.sum(name, &[label])
    }

    /// The end of the bucket that the slowest hundredth of what was observed since `before` reaches
    /// into, over all series of a histogram. None if nothing was observed.
    pub fn p99_since(&self, before: &Self, histogram: &str) -> Option<f64> {
        let name = format!("{histogram}_bucket");
        let mut counts: Vec<(f64, f64)> = Vec::new();
        for (sample, sign) in [(self, 1.0), (before, -1.0)] {
            for (labels, value) in sample.series.get(&name).into_iter().flatten() {
                let Some(end) = bucket_end(labels) else { continue };
                match counts.iter_mut().find(|(known, _)| *known == end) {
                    Some((_, count)) => *count += sign * value,
                    None => counts.push((end, sign * value)),
                }
            }
        }
        counts.sort_by(|a, b| a.0.total_cmp(&b.0));
        let total = counts.last()?.1;
        let reached = counts.iter().find(|(_, count)| *count >= total * 0.99)?;
        (total > 0.0).then_some(reached.0)
    }
}

fn bucket_end(labels: &str) -> Option<f64> {
    let (_, rest) = labels.split_once("le=\"")?;
    match rest.split_once('"')?.0 {
        "+Inf" => Some(f64::INFINITY),
        end => end.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_added_up_by_their_labels() {
        let page =
            "# TYPE calls counter\ncalls{code=\"OK\",m=\"Put\"} 3\ncalls{code=\"Bad\"} 1.5\nup 1\n";
        let sample = Sample::read(page);
        assert_eq!(sample.sum("calls", &[]), 4.5);
        assert_eq!(sample.sum("calls", &["code=\"OK\"", "m=\"Put\""]), 3.0);
        assert_eq!(sample.sum_without("calls", "code=\"OK\""), 1.5);
        assert_eq!(sample.sum("missing", &[]), 0.0);
    }

    #[test]
    fn quantiles_are_of_what_came_between() {
        let page = |a: u32, b: u32, c: u32| {
            let text = format!(
                "t_bucket{{k=\"x\",le=\"0.1\"}} {a}\nt_bucket{{k=\"x\",le=\"0.2\"}} {b}\n\
                 t_bucket{{k=\"x\",le=\"+Inf\"}} {c}\n"
            );
            Sample::read(&text)
        };
        let before = page(100, 100, 100);
        assert_eq!(page(200, 200, 200).p99_since(&before, "t"), Some(0.1));
        assert_eq!(page(190, 200, 200).p99_since(&before, "t"), Some(0.2));
        assert_eq!(page(190, 198, 200).p99_since(&before, "t"), Some(f64::INFINITY));
        assert_eq!(page(100, 100, 100).p99_since(&before, "t"), None);
    }
}
