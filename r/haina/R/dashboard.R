#' Watch a federation in a browser
#'
#' A small page, written with shiny: how the federation stands, accuracy with its threshold, every round, every node. A click on a round shows its
#' clients with verdict, share, factors and reason; a click on a node what became of its updates. It looks again every few seconds; while the
#' coordinator is away it says so, keeps what was last seen, and tries again ever more slowly.
#'
#' The page only reads. It has no passwords: whoever reaches its address sees what the credentials may see. So it listens on this machine's loopback
#' unless told otherwise, and answers only pages that were opened at its own address.
#'
#' @param folder a folder of credentials of a viewer or an operator (made by `haina join`), a coordinator's state folder, or the folder of a run
#'   (`runs/NAME`).
#' @param federation which federation of the coordinator; the page lets choose where there are several.
#' @param port where to listen; a free one if `NULL`.
#' @param launch.browser whether to open a browser, as in [shiny::runApp()].
#' @param host the address to listen on. Another than the loopback lets others in: put a proxy with passwords in front.
#' @param every seconds between two looks, at least 0.2.
#' @param threshold where the red dashed line lies, between 0 and 1.
#' @param window evaluations in the rolling mean of accuracy.
#' @return nothing; runs until it is interrupted.
#' @examples
#' \dontrun{
#' haina_dashboard("haina-node-me")
#' haina_dashboard("runs/demo", port = 8080)
#' }
#' @export
haina_dashboard <- function(folder, federation = NULL, port = NULL, launch.browser = interactive(),
                            host = "127.0.0.1", every = 5, threshold = 0.9, window = 5) {
  needs("shiny", "dashboards")
  needs("ggplot2", "pictures")
  check_number(every, "every", 0.2, 3600)
  check_number(threshold, "threshold", 0, 1)
  check_number(window, "window", 1, 1000)
  # What cannot be opened is said here and not in the browser. Each page has a source of its own, with its own choice of federation.
  source_of(folder, federation)
  open <- function() source_of(folder, federation)
  app <- dashboard_app(open, every, threshold, window, local = host %in% LOOPBACK)
  if (!host %in% LOOPBACK) {
    message("Everybody who reaches ", host, " can read this page: put a proxy with passwords in front")
  }
  shiny::runApp(app, host = host, port = port, launch.browser = launch.browser)
  invisible()
}

LOOPBACK <- c("127.0.0.1", "localhost", "::1")

# The page and what is behind it, as a shiny app. `open` gives a source; `local`: only whoever opened it by a name of the loopback is answered.
dashboard_app <- function(open, every = 5, threshold = 0.9, window = 5, local = TRUE) {
  behind <- dashboard_server(open, every, threshold, window)
  shiny::shinyApp(
    ui = function(request) {
      if (admits(request, local)) return(dashboard_page(every))
      refused <- "This page is there for its own machine: open it at http://127.0.0.1"
      shiny::httpResponse(403L, "text/plain", refused)
    },
    server = function(input, output, session) {
      if (!admits(session$request, local)) return(session$close())
      behind(input, output, session)
    }
  )
}

# Whether a request came from a page of this address. A browser lets any page of the web open a socket to the loopback, under its own `Origin`; and a
# name of the web can be made to lead to the loopback, which `Host` then tells.
admits <- function(request, local) {
  host <- request$HTTP_HOST
  origin <- request$HTTP_ORIGIN
  if (is.null(host)) return(FALSE)
  if (!is.null(origin) && !identical(tolower(sub("^https?://", "", origin)), tolower(host))) return(FALSE)
  !local || gsub("^\\[|\\]$", "", sub(":[0-9]+$", "", tolower(host))) %in% LOOPBACK
}
