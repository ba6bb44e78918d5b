//! How the host fares: on battery, on a wireless link, nearly out of disk. A laptop should not do
//! for the site what a desktop beside it can.
//!
//! Read from sysfs and procfs below a root folder, so that tests can make up a machine.

use std::fs;
use std::path::Path;

/// What makes a node do less for the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It runs from its battery.
    Battery,
    /// Its default route is a wireless link.
    Wireless,
    /// Its operator says that its link is paid for by volume.
    Metered,
    /// Its disk has little more left than what stays free.
    DiskNearlyFull,
}

impl Condition {
    /// In words, for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Battery => "on battery",
            Self::Wireless => "on a wireless link",
            Self::Metered => "metered",
            Self::DiskNearlyFull => "nearly out of disk",
        }
    }
}

/// A weight in the ranking of leads as the conditions leave it. It stays above 0, which means
/// 'never while another can', unless there is no room for what a lead pulls.
pub fn effective_weight(weight: u32, conditions: &[Condition]) -> u32 {
    let part = |condition: &Condition| match condition {
        Condition::Battery | Condition::Metered => Some(10),
        Condition::Wireless => Some(4),
        Condition::DiskNearlyFull => None,
    };
    let lowered = conditions.iter().try_fold(weight, |weight, it| Some(weight / part(it)?));
    lowered.map_or(0, |lowered| lowered.max(weight.min(1)))
}

/// What the host's system tells of it.
pub fn of_host(root: &Path) -> Vec<Condition> {
    let conditions = [(on_battery(root), Condition::Battery), (on_wireless_link(root), Condition::Wireless)];
    conditions.into_iter().filter_map(|(holds, condition)| holds.then_some(condition)).collect()
}

/// One word of a file in sysfs; empty if there is none.
fn word(file: &Path) -> String {
    fs::read_to_string(file).map_or_else(|_| String::new(), |text| text.trim().to_owned())
}

/// A battery of the machine (not of a mouse) is being emptied, and no power comes from outside.
fn on_battery(root: &Path) -> bool {
    let Ok(supplies) = fs::read_dir(root.join("sys/class/power_supply")) else { return false };
    let mut discharging = false;
    for supply in supplies.flatten().map(|entry| entry.path()) {
        let says = |name: &str| word(&supply.join(name));
        match says("type").as_str() {
            // 1 and 2 are both online: at a fixed or at an agreed voltage.
            "Mains" | "USB" if !matches!(says("online").as_str(), "" | "0") => return false,
            "Battery" if says("scope") != "Device" => discharging |= says("status") == "Discharging",
            _ => {}
        }
    }
    discharging
}

/// The interface of the default route is a wireless one.
fn on_wireless_link(root: &Path) -> bool {
    let routes = fs::read_to_string(root.join("proc/net/route")).unwrap_or_default();
    default_interface(&routes).is_some_and(|name| {
        let interface = root.join("sys/class/net").join(name);
        interface.join("wireless").exists() || interface.join("phy80211").exists()
    })
}

/// The interface of the default route: of several, the one with the least metric.
fn default_interface(routes: &str) -> Option<&str> {
    let defaults = routes.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let &[name, destination, _, flags, _, _, metric, mask, ..] = &fields[..] else { return None };
        let is_up = u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & 1 == 1);
        let to_all = destination == "00000000" && mask == "00000000";
        (is_up && to_all).then_some((metric.parse::<u32>().ok()?, name))
    });
    defaults.min().map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A made-up machine.
    struct Machine(tempfile::TempDir);

    impl Machine {
        fn new() -> Self {
            Self(tempfile::tempdir().expect("a folder"))
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("room");
            fs::write(path, text).expect("room");
        }

        fn supply(&self, name: &str, facts: &[(&str, &str)]) {
            for (fact, value) in facts {
                self.write(&format!("sys/class/power_supply/{name}/{fact}"), &format!("{value}\n"));
            }
        }

        fn conditions(&self) -> Vec<Condition> {
            of_host(self.0.path())
        }
    }

    #[test]
    fn a_machine_without_a_battery_has_nothing_to_say() {
        let machine = Machine::new();
        assert_eq!(machine.conditions(), []);
        machine.supply(
            "hidpp_battery_0",
            &[("type", "Battery"), ("scope", "Device"), ("status", "Discharging")],
        );
        assert_eq!(machine.conditions(), [], "that is the mouse");
    }

    #[test]
    fn a_laptop_off_its_charger_is_on_battery() {
        let machine = Machine::new();
        machine.supply("BAT0", &[("type", "Battery"), ("status", "Discharging")]);
        assert_eq!(machine.conditions(), [Condition::Battery]);
        machine.supply("AC", &[("type", "Mains"), ("online", "0")]);
        assert_eq!(machine.conditions(), [Condition::Battery]);
        machine.supply("ucsi-1", &[("type", "USB"), ("online", "1")]);
        assert_eq!(machine.conditions(), [], "charged over USB, if too slowly");
        machine.supply("ucsi-1", &[("online", "0")]);
        machine.supply("BAT0", &[("status", "Full")]);
        assert_eq!(machine.conditions(), []);
    }

    #[test]
    fn the_default_route_tells_the_link() {
        let head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
        let wired = "eth0\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n";
        let wireless = "wlan0\t00000000\t0100000A\t0003\t0\t0\t600\t00000000\t0\t0\t0\n";
        let lan = "wlan0\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0\n";
        let down = "eth0\t00000000\t0100000A\t0002\t0\t0\t1\t00000000\t0\t0\t0\n";
        let machine = Machine::new();
        machine.write("sys/class/net/wlan0/wireless/link", "60");
        machine.write("sys/class/net/eth0/mtu", "1500");
        for (routes, holds) in [
            (format!("{head}{wireless}{lan}"), true),
            (format!("{head}{wireless}{wired}{lan}"), false),
            (format!("{head}{down}{wireless}"), true),
            (format!("{head}{lan}"), false),
            (format!("{head}eth0\t00000000\n"), false),
        ] {
            machine.write("proc/net/route", &routes);
            assert_eq!(machine.conditions() == [Condition::Wireless], holds, "{routes}");
        }
        machine.write("sys/class/net/eth0/phy80211/name", "phy0");
        machine.write("proc/net/route", &format!("{head}{wired}"));
        assert_eq!(machine.conditions(), [Condition::Wireless]);
    }

    #[test]
    fn conditions_lower_the_weight_and_only_a_full_disk_takes_it_all() {
        use Condition::{Battery, DiskNearlyFull, Metered, Wireless};
        assert_eq!(effective_weight(100, &[]), 100);
        assert_eq!(effective_weight(100, &[Battery]), 10);
        assert_eq!(effective_weight(100, &[Wireless]), 25);
        assert_eq!(effective_weight(100, &[Battery, Wireless, Metered]), 1);
        assert_eq!(effective_weight(400, &[Metered, DiskNearlyFull]), 0);
        assert_eq!(effective_weight(0, &[Battery]), 0);
    }
}
