library(testthat)
library(haina)

test_check("haina")
