//! Moments for people: a count of seconds as a date and a time of day, in UTC, and back.

const SECONDS_PER_DAY: u64 = 86_400;
/// Days from the first of March of a year 0 to 1970.
const DAYS_FROM_MARCH_0: u64 = 719_468;
const DAYS_IN_400_YEARS: u64 = 146_097;

/// Seconds since 1970 as RFC 3339 writes them, with microseconds if they are known.
pub fn moment(seconds: u64, micros: Option<u32>) -> String {
    let (days, rest) = (seconds / SECONDS_PER_DAY, seconds % SECONDS_PER_DAY);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    let (year, month, day) = date(days);
    let fraction = micros.map(|micros| format!(".{micros:06}")).unwrap_or_default();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// Year, month and day of a day counted from 1970. The year is taken to begin in March, so that the
/// day that some years have more is the last of the year.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + DAYS_FROM_MARCH_0;
    let (era, day_of_era) = (days / DAYS_IN_400_YEARS, days % DAYS_IN_400_YEARS);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// Milliseconds since 1970 of a moment as RFC 3339 writes it: `2026-11-22T10:45:29Z`, perhaps with a
/// fraction, which is cut to milliseconds, or with an offset such as `+02:00`. `None` if it is none, or
/// before 1970.
pub fn milliseconds(text: &str) -> Option<u64> {
    let (day, rest) = text.split_once(['T', 't', ' '])?;
    let [year, month, day] = numbers(day, '-', [4, 2, 2])?;
    let zone_at = rest.find(['Z', 'z', '+', '-'])?;
    let (time, zone) = rest.split_at(zone_at);
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let millis: u64 = format!("{fraction:0<3}")[..3].parse().ok()?;
    let days = days(year, month, day)?;
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let local = days * SECONDS_PER_DAY + hour * 3_600 + minute * 60 + second;
    let seconds = match zone {
        "Z" | "z" => local,
        _ => {
            let [hours, minutes] = numbers(&zone[1..], ':', [2, 2])?;
            let offset = hours * 3_600 + minutes * 60;
            if hours > 23 || minutes > 59 {
                return None;
            }
            if zone.starts_with('+') { local.checked_sub(offset)? } else { local + offset }
        }
    };
    Some(seconds * 1_000 + millis)
}

/// Numbers of so many digits each.
fn numbers<const N: usize>(text: &str, between: char, digits: [usize; N]) -> Option<[u64; N]> {
    let mut found = [0; N];
    let mut parts = text.split(between);
    for (found, digits) in found.iter_mut().zip(digits) {
        let part = parts.next()?;
        let is_sound = part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit());
        *found = part.parse().ok().filter(|_| is_sound)?;
    }
    parts.next().is_none().then_some(found)
}

/// The day counted from 1970 of a year, month and day; `date` turned round.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1..=12).contains(&month) {
        return None;
    }
    let year = year.checked_sub(u64::from(month <= 2))?;
    let (era, year_of_era) = (year / 400, year % 400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day.checked_sub(1)?;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = (era * DAYS_IN_400_YEARS + day_of_era).checked_sub(DAYS_FROM_MARCH_0)?;
    // A day that the month does not have is another's.
    (date(days).1 == month && date(days).2 == day).then_some(days)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_rfc_3339_has_them() {
        for day in (0..40_000).step_by(13) {
            let seconds = day * SECONDS_PER_DAY + day;
            assert_eq!(milliseconds(&moment(seconds, None)), Some(seconds * 1_000));
        }
        let cases = [
            ("2023-11-14T22:13:20.5Z", Some(1_700_000_000_500)),
            ("2023-11-14T22:13:20.123456Z", Some(1_700_000_000_123)),
            ("2023-11-15 00:13:20+02:00", Some(1_700_000_000_000)),
            ("2023-11-14T17:43:20-04:30", Some(1_700_000_000_000)),
            ("2024-02-29T00:00:00Z", Some(1_709_164_800_000)),
            ("2023-02-29T00:00:00Z", None),
            ("2023-13-01T00:00:00Z", None),
            ("2023-11-00T00:00:00Z", None),
            ("2023-11-14T24:00:00Z", None),
            ("2023-11-14T22:13:20", None),
            ("2023-11-14T22:13:20.Z", None),
            ("2023-11-14T22:13:20+2:00", None),
            ("2023-11-14", None),
            ("1969-12-31T23:59:59Z", None),
            ("", None),
        ];
        for (text, wanted) in cases {
            assert_eq!(milliseconds(text), wanted, "{text}");
        }
    }

    #[test]
    fn days_are_counted_as_the_calendar_does() {
        let days = [
            (0, (1970, 1, 1)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (20_000, (2024, 10, 4)),
        ];
        for (day, expected) in days {
            assert_eq!(date(day), expected);
        }
    }

    #[test]
    fn moments_are_written_as_rfc_3339_has_them() {
        assert_eq!(moment(1_700_000_000, None), "2023-11-14T22:13:20Z");
        assert_eq!(moment(86_399, Some(42)), "1970-01-01T23:59:59.000042Z");
    }
}
