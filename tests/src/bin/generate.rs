//! Writes customers to a CSV file: `generate FILE COUNT [SEED] [first|second]`.

use anyhow::{Context, bail};
use tests::{Customers, Edition};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, count, rest @ ..] = arguments.as_slice() else {
        bail!("usage: generate FILE COUNT [SEED] [first|second]");
    };
    let seed = rest.first().map_or(Ok(1), |seed| seed.parse()).context("SEED is a number")?;
    let edition = match rest.get(1).map(String::as_str) {
        None | Some("first") => Edition::First,
        Some("second") => Edition::Second,
        Some(_) => bail!("the edition is `first` or `second`"),
    };
    let customers = Customers::new(seed, count.parse().context("COUNT is a number")?);
    customers.write_csv(file.as_ref(), edition).with_context(|| format!("write {file}"))?;
    Ok(())
}
