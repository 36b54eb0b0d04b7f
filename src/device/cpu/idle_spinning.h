// How long idle compute threads wait before they sleep.
#pragma once

namespace octavo::device {

/// First thing in main. libgomp's idle threads, and its barriers waiting for a thread that the system has put aside,
/// spin 300,000 times before they sleep: on two cores under load 10 a picture took 5 to 20 s, and 1.2 s with 2,000
/// spins (some 30 microseconds, which still bridge the gap between two ops; measured on an AMD EPYC, 2026-11).
/// libgomp reads its environment only when it is loaded, so this sets GOMP_SPINCOUNT and starts the program again,
/// once. Does nothing when the user has set GOMP_SPINCOUNT or OMP_WAIT_POLICY, or when the restart is refused.
void limit_idle_spinning(char** argv);

}  // namespace octavo::device
