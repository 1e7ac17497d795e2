//! What weathers are called on the command line and in files.

use crate::Weather;

/// All of them, in the order they are shown.
pub const WEATHERS: [Weather; 7] = [
    Weather::Storm,
    Weather::Operators,
    Weather::OldRevokes,
    Weather::Fading,
    Weather::Handovers,
    Weather::Restarts,
    Weather::Copies,
];

/// The name of a weather.
pub const fn weather_name(weather: Weather) -> &'static str {
    match weather {
        Weather::Storm => "storm",
        Weather::Operators => "operators",
        Weather::OldRevokes => "old-revokes",
        Weather::Fading => "fading",
        Weather::Handovers => "handovers",
        Weather::Restarts => "restarts",
        Weather::Copies => "copies",
    }
}

/// The weather of that name.
///
/// # Errors
/// There is none: says which there are.
pub fn weather_named(name: &str) -> Result<Weather, String> {
    let found = WEATHERS.into_iter().find(|weather| weather_name(*weather) == name);
    found.ok_or_else(|| format!("'{name}' is no weather: there are {}", WEATHERS.map(weather_name).join(", ")))
}
