module bench/go_driver

go 1.26
