# Leaves that are not smaller than the federation allows.
#
# randomForest and ranger stop splitting small nodes, and yet leave leaves of a single row, whose outcome a regression tree then tells. So before a
# forest leaves, a node with a child of fewer than `min_leaf` rows becomes a leaf itself. As in scikit-learn, the rows of a bag are counted once each.

# The forest of `forest_of` without small leaves.
# rows: the training rows (`forest_rows`). outcomes: `[n, outcomes]` zeros and a one at each row's class, or one column of values. inbag: a list, how
# often each row is in the bag of each tree.
pruned <- function(forest, rows, outcomes, inbag, min_leaf) {
  part <- forest$forests[[1L]]
  part$trees <- Map(pruned_tree, part$trees, inbag,
                    MoreArgs = list(rows, outcomes, min_leaf, forest$classes, part$soft))
  forest$forests <- list(part)
  forest
}

pruned_tree <- function(tree, inbag, rows, outcomes, min_leaf, classes, soft) {
  many <- length(tree$l)
  ends <- tree_leaves(tree, rows$x, rows$codes)
  held <- tabulate(ends[inbag > 0], many)
  sums <- matrix(0, many, ncol(outcomes) + 1L)
  totals <- rowsum(cbind(outcomes, 1) * inbag, ends)
  sums[as.integer(rownames(totals)), ] <- totals
  inner <- which(tree$l > 0L)
  # Children come after their parent, so from the last node on all below a node is known.
  for (i in rev(inner)) {
    children <- c(tree$l[[i]], tree$r[[i]])
    held[[i]] <- sum(held[children])
    sums[i, ] <- colSums(sums[children, , drop = FALSE])
  }
  ended <- tree$l == 0L
  made <- logical(many)
  made[inner] <- pmin(held[tree$l[inner]], held[tree$r[inner]]) < min_leaf
  kept <- seq_len(many) == 1L
  for (i in inner) if (kept[[i]] && !made[[i]]) kept[c(tree$l[[i]], tree$r[[i]])] <- TRUE
  for (i in which(made & kept)) {
    mean <- sums[i, -ncol(sums)] / sums[i, ncol(sums)]
    tree$votes[i, ] <- if (classes && !soft) as.double(seq_along(mean) == which.max(mean)) else mean
  }
  number <- cumsum(kept)
  ended <- (ended | made)[kept]
  child <- function(side) ifelse(ended, 0L, number[pmax(1L, side[kept])])
  split <- tree$start[kept] > 0L & !ended
  width <- set_widths(tree)[kept]
  start <- integer(sum(kept))
  start[split] <- c(1L, cumsum(width[split]) + 1L)[seq_len(sum(split))]
  taken <- unlist(Map(function(at, width) at - 1L + seq_len(width), tree$start[kept][split], width[split]))
  grown_tree(child(tree$l), child(tree$r), tree$f[kept], tree$thr[kept], tree$votes[kept, , drop = FALSE],
             start, tree$goes[as.integer(taken)])
}
