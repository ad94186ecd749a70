"""`haina demo`: a federation to watch. `live` has real processes; `simulated` has more clients in one."""
