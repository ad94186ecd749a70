# A forest as JSON bytes, exactly: 17 digits read back as the same double in every language, where jsonlite keeps 15.

forest_bytes <- function(forest) {
  parts <- vapply(forest$forests, part_json, "", classes = forest$classes)
  named <- ""
  columns <- vapply(forest$columns, column_json, "")
  if (length(columns)) named <- sprintf("\"columns\":[%s],", commas(columns))
  if (length(forest$labels)) named <- sprintf("%s\"labels\":%s,", named, names_json(forest$labels))
  head <- "{\"format\":\"haina-forest\",\"version\":2,\"kind\":\"%s\",\"classes\":%d,\"features\":%d,"
  head <- sprintf(head, forest$kind, forest$classes, forest$features)
  charToRaw(sprintf("%s%s\"forests\":[%s]}", head, named, commas(parts)))
}

commas <- function(texts) paste(texts, collapse = ",")

names_json <- function(names) sprintf("[%s]", commas(vapply(names, json_string, "")))

column_json <- function(column) {
  levels <- if (length(column$levels)) sprintf(",\"levels\":%s", names_json(column$levels)) else ""
  sprintf("{\"name\":%s%s}", json_string(column$name), levels)
}

part_json <- function(part, classes) {
  trees <- vapply(part$trees, tree_json, "", soft = part$soft, classes = classes)
  sprintf(
    "{\"source\":%s,\"rule\":\"%s\",\"soft\":%s,\"examples\":%.0f,\"importance\":%s,\"trees\":[%s]}",
    json_string(part$source), part$rule, if (part$soft) "true" else "false", part$examples,
    json_array("%.17g", part$importance), commas(trees)
  )
}

tree_json <- function(tree, soft, classes) {
  leaf <- tree$l == 0L
  votes <- if (!classes) {
    sprintf("%.17g", tree$votes[, 1L])
  } else if (soft) {
    shares <- matrix(sprintf("%.17g", tree$votes), nrow(tree$votes))
    ifelse(leaf, paste0("[", do.call(paste, c(as.data.frame(shares), sep = ",")), "]"), "0")
  } else {
    sprintf("%d", ifelse(leaf, max.col(tree$votes, "first") - 1L, 0L))
  }
  set <- ""
  if (length(tree$goes)) {
    digits <- paste(ifelse(tree$goes, "1", "0"), collapse = "")
    texts <- substring(digits, tree$start, tree$start - 1L + set_widths(tree))
    set <- sprintf(",\"set\":[%s]", paste0("\"", texts, "\"", collapse = ","))
  }
  sprintf(
    "{\"l\":%s,\"r\":%s,\"f\":%s,\"thr\":%s%s,\"v\":[%s]}",
    json_array("%d", tree$l - 1L), json_array("%d", tree$r - 1L), json_array("%d", tree$f - 1L),
    json_array("%.17g", tree$thr), set, commas(votes)
  )
}

json_array <- function(form, x) sprintf("[%s]", commas(sprintf(form, x)))

# How many levels each node's set has; 0 for none.
set_widths <- function(tree) {
  width <- integer(length(tree$start))
  splits <- which(tree$start > 0L)
  splits <- splits[order(tree$start[splits])]
  width[splits] <- diff(c(tree$start[splits], length(tree$goes) + 1L))
  width
}
