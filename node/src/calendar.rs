//! Moments for people: a count of seconds as a date and a time of day, in UTC.

const SECONDS_PER_DAY: u64 = 86_400;

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
    const DAYS_FROM_MARCH_0: u64 = 719_468;
    const DAYS_IN_400_YEARS: u64 = 146_097;
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

#[cfg(test)]
mod tests {
    use super::*;

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
